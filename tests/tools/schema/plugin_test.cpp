// What the plugin refuses, and with which words; and how it names things.
#include <filesystem>
#include <string>

#include "tests/tools/schema/plugin_fixture.hpp"
#include "tools/schema/model.hpp"

namespace nestor::schema {
namespace {

class SchemaPlugin : public test::PluginFixture {
protected:
    void expect_refused(const std::string& text, const std::string& why) {
        const auto out = compile(text);
        EXPECT_NE(out.find(why), std::string::npos) << out;
        EXPECT_FALSE(std::filesystem::exists(folder_ / "x.hpp"));
    }
};

TEST_F(SchemaPlugin, AcceptsAPlainStruct) {
    EXPECT_EQ(compile("struct S { a @0 :UInt8; }"), "");
    EXPECT_TRUE(std::filesystem::exists(folder_ / "x.hpp"));
}

TEST_F(SchemaPlugin, RefusesFloats) {
    expect_refused("struct S { a @0 :Float64; }", "S.a: floats, interfaces and AnyPointer");
}

TEST_F(SchemaPlugin, RefusesAnyPointer) {
    expect_refused("struct S { a @0 :AnyPointer; }", "S.a: floats, interfaces and AnyPointer");
}

TEST_F(SchemaPlugin, RefusesInterfaces) {
    expect_refused("interface I {}", "I: only structs, enums and constants hold state");
}

TEST_F(SchemaPlugin, RefusesGenerics) {
    expect_refused("struct S(T) { a @0 :T; }", "S: generic structs");
}

TEST_F(SchemaPlugin, RefusesListsOfLists) {
    expect_refused("struct S { a @0 :List(List(UInt8)); }", "S.a: lists of lists");
}

TEST_F(SchemaPlugin, RefusesAStructThatContainsItself) {
    expect_refused("struct S { a @0 :List(T); } struct T { s @0 :S; }", "contains itself");
}

TEST_F(SchemaPlugin, RefusesFixedOnAScalar) {
    expect_refused("struct S { a @0 :UInt8 $A.fixed(2); }", "S.a: $fixed is for lists and Data");
}

TEST_F(SchemaPlugin, RefusesFixedZero) {
    expect_refused("struct S { a @0 :Data $A.fixed(0); }", "S.a: $fixed(0) holds nothing");
}

TEST_F(SchemaPlugin, RefusesAVariableListOfBool) {
    expect_refused("struct S { a @0 :List(Bool); }", "S.a: a List(Bool) needs $fixed");
}

TEST_F(SchemaPlugin, RefusesDefaultsOfLists) {
    expect_refused("struct S { a @0 :List(UInt8) = [1]; }", "S.a: lists, Data and structs have no");
}

TEST_F(SchemaPlugin, RefusesAVmcsFieldOfTheWrongWidth) {
    expect_refused("struct S { a @0 :UInt32 $A.vmcs(0x681e); }", "S.a: the type does not have");
}

TEST_F(SchemaPlugin, RefusesTwoTypesOfOneName) {
    expect_refused("struct S { struct T { a @0 :Bool; } } struct ST { b @0 :Bool; }",
                   "the C++ name ST is taken twice");
}

TEST_F(SchemaPlugin, RefusesTwoMembersOfOneName) {
    expect_refused("struct S { aB @0 :Bool; aB2 @1 :Bool; ab @2 :Bool; value @3 :Bool; "
                   "union { x @4 :Void; y @5 :Void; } }",
                   "S: the member value is there twice");
}

TEST(SchemaNames, BecomeSnakeCase) {
    EXPECT_EQ(snake_case("guestRip"), "guest_rip");
    EXPECT_EQ(snake_case("cr3"), "cr3");
    EXPECT_EQ(snake_case("guestIa32Efer"), "guest_ia32_efer");
    EXPECT_EQ(snake_case("guestIA32Pat"), "guest_ia32_pat");
    EXPECT_EQ(snake_case("l2Active"), "l2_active");
    EXPECT_EQ(snake_case("lvtLint0"), "lvt_lint0");
    EXPECT_EQ(snake_case("register"), "register_");
}

} // namespace
} // namespace nestor::schema
