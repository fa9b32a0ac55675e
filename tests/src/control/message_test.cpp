#include "src/control/message.hpp"

#include <gtest/gtest.h>

namespace nestor::control {
namespace {

TEST(Message, ARequestComesBackAsItWasSent) {
    Request request{.verb = "save", .arguments = {}};
    request.arguments.add("tag", "a \"b\"\n").add("replace", true).add("n", ~u64{0});
    const auto back = decode_request(encode(request));
    ASSERT_TRUE(back);
    EXPECT_EQ(back->verb, "save");
    EXPECT_EQ(back->arguments.text("tag"), "a \"b\"\n");
    EXPECT_TRUE(back->arguments.flag("replace"));
    EXPECT_EQ(back->arguments.number("n"), ~u64{0});
}

TEST(Message, AnErrorKeepsCodeMessageAndRemedy) {
    const Error error{ErrorCode::corrupt, "page 3", "restore another"};
    const auto back = decode_reply(encode(Reply{Reply::Kind::error, error_object(error)}));
    ASSERT_TRUE(back);
    const Error got = error_of(*back);
    EXPECT_EQ(got.code, ErrorCode::corrupt);
    EXPECT_EQ(got.message, "page 3");
    EXPECT_EQ(got.remedy, "restore another");
}

TEST(Message, AnErrorWithAnUnknownCodeIsAFailure) {
    const auto back = decode_reply(R"({"error":{"code":77,"message":"x"}})");
    ASSERT_TRUE(back);
    EXPECT_EQ(error_of(*back).code, ErrorCode::failed);
}

TEST(Message, WhatIsNoMessageIsCorrupt) {
    for (const char* text : {"", "{", "[]", "null", "7", "{}", R"({"verb":1})", "\xff\xfe",
                             R"({"verb":"save","arguments":[]})"}) {
        const auto back = decode_request(text);
        ASSERT_FALSE(back) << text;
        EXPECT_EQ(back.error().code, ErrorCode::corrupt) << text;
    }
}

TEST(Message, DeepNestingIsReadWithoutHarm) {
    const std::string deep(max_message / 2, '[');
    EXPECT_FALSE(decode_request(R"({"verb":"x","arguments":)" + deep));
}

TEST(Message, ValuesOfAnotherTypeReadAsTheDefault) {
    Object object;
    object.add("a", "text").add("b", u64{7});
    EXPECT_EQ(object.number("a"), 0u);
    EXPECT_EQ(object.text("b"), "");
    EXPECT_FALSE(object.flag("c"));
}

} // namespace
} // namespace nestor::control
