#include "src/control/event.hpp"

#include <gtest/gtest.h>

namespace nestor::control {
namespace {

TEST(Event, TextAfterSerialIsTakenAsItIs) {
    const auto event = parse_event("serial:a:b c");
    ASSERT_TRUE(event);
    EXPECT_EQ(event->kind, Event::Kind::serial);
    EXPECT_EQ(event->text, "a:b c");
}

TEST(Event, CountsAreDecimal) {
    EXPECT_EQ(parse_event("icount:18446744073709551615")->value, ~u64{0});
    EXPECT_EQ(parse_event("icount:10")->kind, Event::Kind::icount);
}

TEST(Event, SecondsMayHaveDecimals) {
    EXPECT_EQ(parse_event("seconds:2")->value, 2'000'000'000u);
    EXPECT_EQ(parse_event("seconds:0.25")->value, 250'000'000u);
}

TEST(Event, WhatIsNoEventIsAUsageErrorThatNamesTheOption) {
    for (const char* text : {"", "noon", "serial:", "icount:", "icount:x", "icount:-1", "icount:1 ",
                             "icount:18446744073709551616", "seconds:", "seconds:-1", "seconds:1.",
                             "seconds:.5", "seconds:1e3", "seconds:99999999999"}) {
        const auto event = parse_event(text);
        ASSERT_FALSE(event) << text;
        EXPECT_EQ(event.error().code, ErrorCode::usage) << text;
        EXPECT_NE(event.error().message.find("--until"), std::string::npos) << text;
    }
}

TEST(Event, TheFirstEntryToANestedGuestIsAnEvent) {
    const auto event = parse_event("l2");
    ASSERT_TRUE(event);
    EXPECT_EQ(event->kind, Event::Kind::l2);
    EXPECT_EQ(to_text(*event), "l2");
}

} // namespace
} // namespace nestor::control
