// Reads the EVENT of `--until`.
#include "src/control/event.hpp"

#include <charconv>

namespace nestor::control {
namespace {

constexpr u64 nanoseconds = 1000000000;
constexpr u64 max_seconds = u64{1} << 32;

Failure wrong(const std::string& text, const std::string& why) {
    return fail(ErrorCode::usage, "--until " + text + ": " + why,
                "write serial:TEXT, icount:N, seconds:N or l2");
}

bool parse_number(std::string_view digits, u64& value) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc{} && end == digits.data() + digits.size();
}

/// Seconds with up to nine decimals, as nanoseconds.
bool parse_seconds(std::string_view digits, u64& value) {
    const std::size_t point = digits.find('.');
    u64 whole = 0;
    if (!parse_number(digits.substr(0, point), whole) || whole > max_seconds) {
        return false;
    }
    u64 fraction = 0;
    if (point != std::string_view::npos) {
        std::string decimals(digits.substr(point + 1));
        if (decimals.empty() || decimals.size() > 9) {
            return false;
        }
        decimals.resize(9, '0');
        if (!parse_number(decimals, fraction)) {
            return false;
        }
    }
    value = whole * nanoseconds + fraction;
    return true;
}

} // namespace

Result<Event> parse_event(const std::string& text) {
    if (text.empty()) {
        return wrong(text, "there is no event");
    }
    Event event;
    if (text == "l2") {
        event.kind = Event::Kind::l2;
        return event;
    }
    const std::size_t colon = text.find(':');
    const std::string kind = text.substr(0, colon);
    const std::string rest = colon == std::string::npos ? "" : text.substr(colon + 1);
    if (kind == "serial") {
        event.kind = Event::Kind::serial;
        event.text = rest;
        return rest.empty() ? Result<Event>(wrong(text, "there is no text")) : event;
    }
    if (kind == "icount") {
        event.kind = Event::Kind::icount;
        return parse_number(rest, event.value) ? event
                                               : Result<Event>(wrong(text, "this is no count"));
    }
    if (kind == "seconds") {
        event.kind = Event::Kind::seconds;
        return parse_seconds(rest, event.value)
                   ? event
                   : Result<Event>(wrong(text, "this is no number of seconds"));
    }
    return wrong(text, "there is no such event");
}

std::string to_text(const Event& event) {
    switch (event.kind) {
    case Event::Kind::never:
        return "never";
    case Event::Kind::serial:
        return "serial:" + event.text;
    case Event::Kind::l2:
        return "l2";
    case Event::Kind::icount:
        return "icount:" + std::to_string(event.value);
    case Event::Kind::seconds:
        return "seconds:" + std::to_string(event.value / nanoseconds);
    }
    return {};
}

} // namespace nestor::control
