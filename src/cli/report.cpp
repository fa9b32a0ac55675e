// What every verb does with its options and its errors.
#include <cstdio>

#include "snapshot/snapshot.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"
#include "src/control/channel.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

constexpr int save_patience_ms = 120'000;

} // namespace

int report(const Error& error, bool json) {
    if (json) {
        control::Object whole;
        whole.add("error", control::RawJson{control::error_object(error).to_json()});
        std::fprintf(stderr, "%s\n", whole.to_json().c_str());
    } else {
        std::fprintf(stderr, "vm: %s\n", error.message.c_str());
        if (!error.remedy.empty()) {
            std::fprintf(stderr, "vm: %s\n", error.remedy.c_str());
        }
    }
    return static_cast<int>(error.code);
}

void print_line(const std::string& text) { std::printf("%s\n", text.c_str()); }

Result<u64> parse_number(const char* option, const std::string& text, u64 limit) {
    u64 value = 0;
    bool good = !text.empty() && text.size() <= 20;
    for (const char c : text) {
        const u64 digit = static_cast<u64>(c - '0');
        good = good && c >= '0' && c <= '9' && value <= (~u64{0} - digit) / 10;
        value = value * 10 + digit;
    }
    if (!good || value > limit) {
        return fail(ErrorCode::usage, std::string(option) + " " + text +
                                          ": this is not a number from 0 to " +
                                          std::to_string(limit));
    }
    return value;
}

Result<u64> parse_size(const char* option, const std::string& text) {
    const auto wrong = [&](const char* why) {
        return fail(ErrorCode::usage, std::string(option) + " " + text + ": " + why,
                    "write bytes, or a number with K, M, G or T: 512M");
    };
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const std::string suffix = text.substr(digits);
    constexpr std::string_view letters = "KMGT";
    unsigned shift = 0;
    if (suffix.size() == 1) {
        const std::size_t at = letters.find(static_cast<char>(suffix[0] & ~0x20));
        if (at == std::string_view::npos) {
            return wrong("this is not a size");
        }
        shift = 10 * (static_cast<unsigned>(at) + 1);
    } else if (!suffix.empty() || digits == 0) {
        return wrong("this is not a size");
    }
    const Result<u64> value = parse_number(option, text.substr(0, digits), ~u64{0} >> shift);
    return value ? Result<u64>(*value << shift) : Result<u64>(wrong("this is too large"));
}

Result<> check_tag(const char* option, const std::string& tag) {
    if (!snapshot::is_valid_tag(tag)) {
        return fail(ErrorCode::usage, std::string(option) + " " + tag + ": this is not a tag",
                    "use 1 to 100 of A-Z a-z 0-9 . _ - and begin with a letter or digit");
    }
    return {};
}

std::string count_text(u64 count, const char* noun) {
    return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string size_text(u64 bytes) {
    constexpr const char* units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    std::size_t unit = 0;
    auto value = static_cast<double>(bytes);
    while (value >= 1024 && unit < 4) {
        value /= 1024;
        ++unit;
    }
    char text[32];
    std::snprintf(text, sizeof(text), value < 10 && unit != 0 ? "%.1f %s" : "%.0f %s", value,
                  units[unit]);
    return text;
}

Result<control::Object> ask_machine(const std::string& name, const std::string& path,
                                    const control::Request& request, bool json) {
    const std::string socket = path.empty() ? TRY(control::socket_path(name)) : path;
    const std::string who = path.empty() ? name : path;
    if (!control::is_alive(socket)) {
        return fail(ErrorCode::failed,
                    "there is no machine " + who + ": nothing listens at " + socket,
                    "see which machines run with: vm ps");
    }
    Work work(request.verb == "save" ? "saving " + name : request.verb, json);
    const control::Reply reply =
        TRY(control::ask(socket, request, save_patience_ms,
                         [&work](u64 done, u64 total) { work.show(done, total); }));
    if (reply.kind == control::Reply::Kind::error) {
        return Failure(with_context(control::error_of(reply), "machine " + who));
    }
    return reply.body;
}

} // namespace nestor::cli
