// relay: runs a machine unbroken, then again in legs, each leg in a fresh process that restores
// what the one before it saved, and compares output and digests. Legs are cut at seeded random
// counts and at moments that are hard to save: strata.hpp.
//
//   relay --kernel FILE [--initrd FILE] [--append TEXT] [--memory MIB] [--cpus N] [--legs N]
//         [--seed N] [--rare N] [--patience N] [--tlbs 1,64,4096] [--require STRATUM,STRATUM...]
//         [--impossible STRATUM=REASON]
//
// A required stratum must have a leg, and one that is said to be impossible must have none.
// Exit status 0 when everything agrees, 1 when not (the first leg that differs is named with the
// fields), 2 for a wrong command line, 77 where the kernel or the initrd is missing. `relay leg …`
// is what it starts for each leg.
#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include <unistd.h>

#include "src/base/fd.hpp"
#include "tests/relay/relay.hpp"

namespace nestor::relay {
namespace {

constexpr u64 to_the_end = ~u64{0};
constexpr int skipped = 77; // Meson's exit status for it
constexpr u64 legs_per_store = 100;
/// Of so many legs one reads all memory before it runs, the others what they touch. Prime to the
/// periods of the TLB sizes and of frozen pages, so that every combination comes. More often where
/// NESTOR_LONG is set.
constexpr u64 eager_every = 7;
constexpr u64 eager_every_if_long = 2;
/// Of so many legs one is checked to save the same bytes that it restored; an eager one.
constexpr u64 twice_every = eager_every_if_long * eager_every;
/// What the stores of a relay take at most.
constexpr u64 scratch_size = u64{1} << 30;

using Arguments = std::map<std::string, std::string>;

Result<Arguments> parse(int argc, char** argv, int first) {
    Arguments arguments;
    for (int i = first; i < argc; i += 2) {
        if (std::strncmp(argv[i], "--", 2) != 0 || i + 1 == argc) {
            return fail(ErrorCode::usage, std::string("relay: what is ") + argv[i] + "?");
        }
        arguments[argv[i] + 2] = argv[i + 1];
    }
    return arguments;
}

u64 number(const Arguments& a, const char* name, u64 otherwise) {
    const auto found = a.find(name);
    return found == a.end() ? otherwise : std::strtoull(found->second.c_str(), nullptr, 10);
}

std::string text(const Arguments& a, const char* name) {
    const auto found = a.find(name);
    return found == a.end() ? std::string() : found->second;
}

std::vector<std::string> split(const std::string& list) {
    std::vector<std::string> parts;
    std::stringstream in(list);
    for (std::string part; std::getline(in, part, ',');) {
        parts.push_back(part);
    }
    return parts;
}

Result<Options> options_of(const Arguments& a) {
    Options o;
    o.kernel = text(a, "kernel");
    o.initrd = text(a, "initrd");
    o.append = text(a, "append");
    o.memory = number(a, "memory", 64) << 20;
    o.cpus = static_cast<u16>(number(a, "cpus", 1));
    o.legs = number(a, "legs", o.legs);
    o.seed = number(a, "seed", o.seed);
    o.rare = number(a, "rare", o.rare);
    o.patience = number(a, "patience", o.patience);
    for (const std::string& name : split(text(a, "require"))) {
        const auto stratum = stratum_of(name);
        if (!stratum) {
            return fail(ErrorCode::usage, "relay: there is no stratum " + name);
        }
        o.required.push_back(*stratum);
    }
    if (const std::string impossible = text(a, "impossible"); !impossible.empty()) {
        const std::string name = impossible.substr(0, impossible.find('='));
        o.impossible = stratum_of(name);
        if (!o.impossible) {
            return fail(ErrorCode::usage, "relay: there is no stratum " + name);
        }
        o.why_impossible = impossible.substr(std::min(impossible.size(), name.size() + 1));
    }
    for (const std::string& size : split(text(a, "tlbs"))) {
        o.tlbs.push_back(static_cast<unsigned>(std::strtoul(size.c_str(), nullptr, 10)));
    }
    return o;
}

std::string quoted(const std::string& word) {
    std::string out = "'";
    for (const char c : word) {
        out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    return out + "'";
}

std::string read_text(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// Runs one leg in a process of its own.
Result<End> spawn(const Options& o, const Leg& leg) {
    char self[4096];
    const ssize_t size = ::readlink("/proc/self/exe", self, sizeof(self));
    const std::string path(self, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    std::string command = "exec " + quoted(path) + " leg";
    const auto add = [&command](const char* name, const std::string& value) {
        command += std::string(" --") + name + " " + quoted(value);
    };
    add("kernel", o.kernel);
    add("initrd", o.initrd);
    add("append", o.append);
    add("memory", std::to_string(o.memory >> 20));
    add("cpus", std::to_string(o.cpus));
    add("from-store", leg.from_store);
    add("from-tag", leg.from_tag);
    add("to", std::to_string(leg.to));
    add("to-store", leg.to_store);
    add("to-tag", leg.to_tag);
    add("output", leg.output);
    add("lazy", leg.lazy ? "1" : "0");
    add("frozen", leg.frozen ? "1" : "0");
    add("twice", leg.twice ? "1" : "0");
    add("tlb", std::to_string(leg.tlb));
    std::FILE* const pipe = ::popen(command.c_str(), "re");
    if (pipe == nullptr) {
        return fail_errno("starting a leg", errno);
    }
    End end;
    char digest[65] = "";
    const int got = std::fscanf(pipe, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %64s", &end.count,
                                &end.kind, &end.exit_status, digest);
    const int status = ::pclose(pipe);
    end.digest = digest;
    if (got != 4 || status != 0) {
        return fail(ErrorCode::failed, "a leg failed: " + command);
    }
    return end;
}

int leg_main(const Arguments& a) {
    const auto options = options_of(a);
    Leg leg;
    leg.from_store = text(a, "from-store");
    leg.from_tag = text(a, "from-tag");
    leg.to = number(a, "to", to_the_end);
    leg.to_store = text(a, "to-store");
    leg.to_tag = text(a, "to-tag");
    leg.output = text(a, "output");
    leg.lazy = number(a, "lazy", 0) != 0;
    leg.frozen = number(a, "frozen", 0) != 0;
    leg.twice = number(a, "twice", 0) != 0;
    leg.tlb = static_cast<unsigned>(number(a, "tlb", 1024));
    const Result<End> end = run_leg(*options, leg);
    if (!end) {
        std::fprintf(stderr, "relay: leg: %s\n", end.error().message.c_str());
        return 1;
    }
    std::printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", end->count, end->kind, end->exit_status,
                end->digest.c_str());
    return 0;
}

struct Unbroken {
    End end;
    std::string output;
};

Result<Unbroken> run_unbroken(const Options& o, unsigned tlb) {
    const auto keeper = TRY(boot(o, tlb));
    const machine::Stop stop = TRY(run_to(*keeper, to_the_end));
    const std::vector<u8> output = keeper->machine().take_serial_output();
    return Unbroken{TRY(end_of(*keeper, stop)), std::string(output.begin(), output.end())};
}

/// Counts to be cut at and from which on to seek a stratum, if one.
using Cuts = std::multimap<u64, std::optional<Stratum>>;

Result<Cuts> choose_counts(const Options& o, u64 end) {
    Sightings sightings;
    if (std::any_of(o.required.begin(), o.required.end(),
                    [](Stratum s) { return (bit_of(s) & scouted) != 0; })) {
        const auto keeper = TRY(boot(o));
        sightings = scout(keeper->machine());
    }
    std::mt19937_64 random(o.seed);
    Cuts cuts;
    for (const Stratum stratum : o.required) {
        const std::vector<u64>& seen = sightings[static_cast<unsigned>(stratum)];
        std::vector<u64> counts;
        std::sample(seen.begin(), seen.end(), std::back_inserter(counts), o.rare, random);
        if (!seen.empty()) {
            std::printf("%s: seen or near at %zu counts\n",
                        stratum_names[static_cast<unsigned>(stratum)], seen.size());
        }
        while (counts.size() < o.rare && seen.empty()) {
            counts.push_back(random() % (end / 10 * 9)); // with room to seek
        }
        for (const u64 count : counts) {
            cuts.emplace(count, stratum);
        }
    }
    while (cuts.size() < o.legs) {
        cuts.emplace(random() % end, std::nullopt);
    }
    return cuts;
}

/// Chooses where the machine is saved, with what the unbroken one is there.
Result<std::vector<Point>> choose(const Options& o, u64 end) {
    const Cuts cuts = TRY(choose_counts(o, end));
    const auto keeper = TRY(boot(o));
    std::vector<Point> points;
    for (const auto& [count, stratum] : cuts) {
        const u64 patience = std::max<u64>(o.patience, keeper->machine().config().turn);
        const auto strata = seek(keeper->machine(), count, stratum, patience);
        if (!strata) {
            break;
        }
        points.push_back(
            {keeper->machine().count().value(), *strata, to_hex(TRY(keeper->digest()).machine)});
    }
    return points;
}

/// Prints how many legs each stratum has; whether that is as it has to be.
bool strata_are_filled(const Options& o, const std::vector<Point>& points) {
    bool filled = true;
    std::printf("%zu legs:", points.size());
    for (unsigned i = 0; i < stratum_names.size(); ++i) {
        const auto n = std::count_if(points.begin(), points.end(),
                                     [i](const Point& p) { return (p.strata >> i & 1) != 0; });
        std::printf(" %s %td", stratum_names[i], n);
        const auto stratum = static_cast<Stratum>(i);
        const bool needed =
            std::find(o.required.begin(), o.required.end(), stratum) != o.required.end();
        filled = filled && (n != 0 || !needed) && (n == 0 || o.impossible != stratum);
    }
    std::printf("\n");
    if (o.impossible) {
        std::printf("%s is impossible: %s\n", stratum_names[static_cast<unsigned>(*o.impossible)],
                    o.why_impossible.c_str());
    }
    return filled;
}

/// The relay itself. False at the first leg that differs.
Result<bool> relay(const Options& o, const Unbroken& unbroken, const std::vector<Point>& points) {
    const std::string output = o.scratch + "/output";
    const u64 eager = std::getenv("NESTOR_LONG") != nullptr ? eager_every_if_long : eager_every;
    std::string last_store;
    for (std::size_t i = 0; i <= points.size(); ++i) {
        const bool last = i == points.size();
        const std::string store = o.scratch + "/store" + std::to_string(i / legs_per_store);
        constexpr unsigned tlbs[] = {1024, 1, 64, 4096};
        const Leg leg{.from_store = last_store,
                      .from_tag = i == 0 ? "" : "leg" + std::to_string(i - 1),
                      .to = last ? to_the_end : points[i].count,
                      .to_store = store,
                      .to_tag = last ? "" : "leg" + std::to_string(i),
                      .output = output,
                      .lazy = i % eager != 0,
                      .frozen = i % 3 == 1,
                      .twice = i != 0 && i % twice_every == 0,
                      .tlb = o.tlbs.empty() ? 1024 : tlbs[i % 4]};
        const End end = TRY(spawn(o, leg));
        const bool same = last ? end == unbroken.end
                               : end.digest == points[i].digest && end.count == points[i].count;
        if (!same) {
            std::printf("FAIL: leg %zu, from count %" PRIu64 " to %" PRIu64 ", differs\n", i,
                        i == 0 ? 0 : points[i - 1].count, end.count);
            if (!last) {
                TRY(explain(o, points[i].count, store, leg.to_tag));
            }
            return false;
        }
        if (!last_store.empty() && last_store != store) {
            std::filesystem::remove_all(last_store);
        }
        last_store = store;
    }
    const std::string written = read_text(output);
    if (written != unbroken.output) {
        const auto where = std::mismatch(written.begin(), written.end(), unbroken.output.begin(),
                                         unbroken.output.end());
        std::printf("FAIL: output differs from byte %td on: %zu bytes, unbroken %zu\n",
                    where.first - written.begin(), written.size(), unbroken.output.size());
        return false;
    }
    return true;
}

Result<bool> relay_main(Options o) {
    using Clock = std::chrono::steady_clock;
    const auto seconds = [start = Clock::now()] {
        return std::chrono::duration<double>(Clock::now() - start).count();
    };
    const Unbroken unbroken = TRY(run_unbroken(o, 1024));
    std::printf("unbroken: %" PRIu64 " instructions, end %" PRIu64 "/%" PRIu64
                ", %zu bytes of output, digest %.16s, %.1f s\n",
                unbroken.end.count, unbroken.end.kind, unbroken.end.exit_status,
                unbroken.output.size(), unbroken.end.digest.c_str(), seconds());
    std::fflush(stdout);
    for (const unsigned tlb : o.tlbs) {
        const Unbroken other = TRY(run_unbroken(o, tlb));
        if (!(other.end == unbroken.end) || other.output != unbroken.output) {
            std::printf("FAIL: with %u TLB entries the end differs: count %" PRIu64 "\n", tlb,
                        other.end.count);
            return false;
        }
        std::printf("%u TLB entries: the same, %.1f s\n", tlb, seconds());
    }
    const std::vector<Point> points = TRY(choose(o, unbroken.end.count));
    const bool filled = strata_are_filled(o, points);
    std::printf("chosen, %.1f s\n", seconds());
    std::fflush(stdout);
    if (!filled) {
        std::printf("FAIL: a required stratum has no leg, or an impossible one has\n");
        return false;
    }
    const bool same = TRY(relay(o, unbroken, points));
    std::printf("%s, %.1f s\n", same ? "output and final digest are those of the unbroken run" : "",
                seconds());
    return same;
}

/// In memory where there is room: the legs show nothing about waiting for a disk.
std::filesystem::path scratch_place() {
    const std::filesystem::path shm = "/dev/shm";
    std::error_code failed;
    const bool roomy = std::filesystem::space(shm, failed).available >= scratch_size;
    return !failed && roomy && ::access(shm.c_str(), W_OK) == 0
               ? shm
               : std::filesystem::temp_directory_path();
}

int main_of(int argc, char** argv) {
    const bool leg = argc > 1 && std::strcmp(argv[1], "leg") == 0;
    const auto arguments = parse(argc, argv, leg ? 2 : 1);
    if (!arguments) {
        std::fprintf(stderr, "%s\n", arguments.error().message.c_str());
        return 2;
    }
    if (leg) {
        return leg_main(*arguments);
    }
    auto options = options_of(*arguments);
    if (!options || options->kernel.empty()) {
        std::fprintf(stderr, "%s\n",
                     options ? "relay: give --kernel FILE" : options.error().message.c_str());
        return 2;
    }
    for (const std::string& file : {options->kernel, options->initrd}) {
        if (!file.empty() && !std::filesystem::exists(file)) {
            std::printf("skipped: %s is missing: run tools/guest\n", file.c_str());
            return skipped;
        }
    }
    std::string scratch = (scratch_place() / "nestor-relay-XXXXXX").string();
    if (::mkdtemp(scratch.data()) == nullptr) {
        std::perror("relay: scratch directory");
        return 1;
    }
    options->scratch = scratch;
    const Result<bool> result = relay_main(*options);
    std::filesystem::remove_all(scratch);
    if (!result) {
        std::printf("FAIL: %s\n", result.error().message.c_str());
    }
    if (!result || !*result) {
        std::printf("alone:");
        for (int i = 0; i < argc; ++i) {
            std::printf(" %s", quoted(argv[i]).c_str());
        }
        std::printf("\n");
        return 1;
    }
    return 0;
}

} // namespace
} // namespace nestor::relay

int main(int argc, char** argv) { return nestor::relay::main_of(argc, argv); }
