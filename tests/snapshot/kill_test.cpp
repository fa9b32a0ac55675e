// kill -9 at seeded moments while a process saves, moves and removes tags, imports and collects, on
// the real file system: whatever it reported as done is there bit for bit, what was under way
// happened as a whole or not at all, the store is sound, and no space is lost for good.
//
// Owns the account of what has to be in the store. A child tells every step on a pipe before it and
// after it, so the account is right up to the one step that the kill met; what came of that one is
// looked up. NESTOR_KILLS and NESTOR_SEED in the environment set how many kills, and which.
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/fd.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

constexpr u32 slots = 6;
constexpr u32 pages = 160;
constexpr u32 nothing = ~u32{0};

/// The machine with number n: a third of it common to all, a third of its own, a third zero.
Machine machine_of_thirds(u32 n) {
    Machine machine = Machine::blank(pages);
    for (u32 i = 0; i < pages; i += 3) {
        machine.fill(0, i, i + 1);
        if (i + 1 < pages) {
            machine.fill(0, i + 1, 1'000'000 + 1000 * n + i);
        }
    }
    if (n % 4 != 3) {
        machine.add_images(n);
    }
    return machine;
}

std::string tag_of(u32 slot) { return "slot-" + std::to_string(slot); }

enum class Verb : u32 { save, remove, tag, rename, gc, import_, count };

/// One thing a child does. Slot `to` gets `content`, or what is in slot `from`.
struct Step {
    Verb verb = Verb::save;
    u32 from = 0;
    u32 to = 0;
    u32 content = 0;
    u32 done = 0;
};

/// What is in the slots: numbers of machines.
using Account = std::array<u32, slots>;

Account empty_account() {
    Account account;
    account.fill(nothing);
    return account;
}

/// The account after a step.
Account after(Account account, const Step& step) {
    switch (step.verb) {
    case Verb::save:
    case Verb::import_:
        account[step.to] = step.content;
        break;
    case Verb::remove:
        account[step.to] = nothing;
        break;
    case Verb::tag:
        account[step.to] = account[step.from];
        break;
    case Verb::rename:
        account[step.to] = account[step.from];
        account[step.from] = nothing;
        break;
    case Verb::gc:
    case Verb::count:
        break;
    }
    return account;
}

/// A step that makes sense with that account.
Step next_step(const Account& account, std::mt19937_64& random, u32 content) {
    for (;;) {
        Step step;
        step.verb = static_cast<Verb>(random() % static_cast<u32>(Verb::count));
        step.from = static_cast<u32>(random() % slots);
        step.to = static_cast<u32>(random() % slots);
        step.content = content;
        const bool needs_from = step.verb == Verb::tag || step.verb == Verb::rename;
        if ((needs_from && (account[step.from] == nothing || step.from == step.to)) ||
            (step.verb == Verb::remove && account[step.to] == nothing)) {
            continue;
        }
        return step;
    }
}

/// The file that imports take in: machine number 0 of a store of its own.
std::string make_export(const TempDir& dir) {
    const std::string path = dir / "exported";
    Store other = make_store(dir / "other");
    EXPECT_TRUE(save(other, machine_of_thirds(0), "exported"));
    const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    const std::vector<std::string> tags{"exported"};
    const auto done = other.export_to(tags, file.get());
    EXPECT_TRUE(done) << done.error().message;
    return path;
}

Result<> perform(Store& store, const Step& step, const std::string& exported) {
    switch (step.verb) {
    case Verb::save: {
        const auto request = [](SaveRequest& r) { r.replace = true; };
        TRY(save(store, machine_of_thirds(step.content), tag_of(step.to), request));
        return {};
    }
    case Verb::import_: {
        const Fd file(::open(exported.c_str(), O_RDONLY | O_CLOEXEC));
        ImportOptions options;
        options.as_tag = tag_of(step.to);
        options.replace = true;
        TRY(store.import_from(file.get(), options));
        return {};
    }
    case Verb::remove:
        return store.remove(tag_of(step.to));
    case Verb::tag:
        return store.tag(tag_of(step.from), tag_of(step.to), true);
    case Verb::rename:
        return store.rename(tag_of(step.from), tag_of(step.to), true);
    case Verb::gc:
        TRY(store.gc());
        return {};
    case Verb::count:
        break;
    }
    return {};
}

/// Does step after step until it is killed.
[[noreturn]] void work_for_ever(const std::string& directory, const std::string& exported,
                                Account account, u64 seed, u32 content, int pipe) {
    std::mt19937_64 random(seed);
    Store store = make_store(directory);
    for (;; ++content) {
        Step step = next_step(account, random, content);
        if (step.verb == Verb::import_) {
            step.content = 0;
        }
        if (::write(pipe, &step, sizeof(step)) != sizeof(step)) {
            ::_exit(1);
        }
        if (const auto done = perform(store, step, exported); !done) {
            std::fprintf(stderr, "step %u: %s\n", static_cast<u32>(step.verb),
                         done.error().message.c_str());
            ::_exit(2);
        }
        account = after(account, step);
        step.done = 1;
        if (::write(pipe, &step, sizeof(step)) != sizeof(step)) {
            ::_exit(1);
        }
    }
}

/// Steps up to the kill: `finished` of them end, then comes a wait that falls into one of the next
/// few. So there is something in the slots also where a step takes longer than any wait.
std::vector<Step> run_and_kill(const std::string& directory, const std::string& exported,
                               const Account& account, u64 seed, u32 content, u64 finished,
                               useconds_t wait) {
    int pipe[2];
    if (::pipe(pipe) != 0) {
        return {};
    }
    const pid_t child = ::fork();
    if (child == 0) {
        ::close(pipe[0]);
        work_for_ever(directory, exported, account, seed, content, pipe[1]);
    }
    ::close(pipe[1]);
    // The clock starts with the first step, however long the process takes to begin.
    std::vector<Step> steps;
    Step step;
    const auto next = [&] {
        const bool told = ::read(pipe[0], &step, sizeof(step)) == sizeof(step);
        if (told) {
            steps.push_back(step);
        }
        return told;
    };
    while (next() && finished > 0) {
        finished -= step.done;
    }
    ::usleep(wait);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child failed by itself: " << status;
    while (next()) {
    }
    ::close(pipe[0]);
    return steps;
}

/// What a slot holds: the number of one of the two machines, or nothing; fails on anything else.
u32 content_of(const std::string& directory, u32 slot, u32 one, u32 other) {
    const Store store = make_store(directory);
    const auto loaded = store.load(tag_of(slot));
    if (!loaded) {
        EXPECT_EQ(loaded.error().code, ErrorCode::failed) << loaded.error().message;
        return nothing;
    }
    for (const u32 n : {one, other}) {
        if (n == nothing) {
            continue;
        }
        const Machine machine = machine_of_thirds(n);
        const auto restored = restore(directory, tag_of(slot), machine);
        EXPECT_TRUE(restored) << tag_of(slot) << ": " << restored.error().message;
        if (restored && restored->same_memory(machine)) {
            return n;
        }
    }
    ADD_FAILURE() << tag_of(slot) << " holds neither " << one << " nor " << other;
    return nothing;
}

/// Compares the store with the account, in which the last step may or may not have happened.
Account look_up(const std::string& directory, const Account& before, const Account& possible) {
    Account account = before;
    for (u32 slot = 0; slot < slots; ++slot) {
        account[slot] = content_of(directory, slot, before[slot], possible[slot]);
        EXPECT_TRUE(account[slot] == before[slot] || account[slot] == possible[slot])
            << tag_of(slot) << " lost " << before[slot];
    }
    return account;
}

void expect_sound(const std::string& directory) {
    const auto report = make_store(directory).fsck();
    ASSERT_TRUE(report) << report.error().message;
    for (const auto& finding : report->findings) {
        ADD_FAILURE() << finding.where << ": " << finding.what;
    }
}

u64 bytes_below(const std::string& directory) {
    u64 bytes = 0;
    for (const std::string& file : all_files(directory)) {
        bytes += std::filesystem::file_size(file);
    }
    return bytes;
}

u64 from_environment(const char* name, u64 otherwise) {
    const char* const text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(Kill, NothingReportedAsDoneIsLostAndGcGetsAllSpaceBack) {
    const TempDir dir;
    const std::string directory = dir / "store";
    const std::string exported = make_export(dir);
    const u64 kills = from_environment("NESTOR_KILLS", 1000);
    std::mt19937_64 random(from_environment("NESTOR_SEED", 1));
    make_store(directory);
    Account account = empty_account();
    std::map<Verb, u32> met; // by which steps the kills met
    u32 content = 1;
    for (u64 kill = 0; kill < kills; ++kill) {
        SCOPED_TRACE("kill " + std::to_string(kill));
        const u64 seed = random();
        const u64 finished = random() % 2;
        const auto wait = static_cast<useconds_t>(random() % 20'000);
        const auto steps =
            run_and_kill(directory, exported, account, seed, content, finished, wait);
        ASSERT_FALSE(steps.empty());
        Account possible = account;
        for (std::size_t i = 0; i < steps.size(); ++i) {
            content = std::max(content, steps[i].content + 1);
            if (steps[i].done != 0) {
                account = possible = after(account, steps[i]);
            } else if (i + 1 == steps.size()) {
                possible = after(account, steps[i]);
                ++met[steps[i].verb];
            }
        }
        account = look_up(directory, account, possible);
        if (kill % 20 == 0) {
            expect_sound(directory);
        }
        ASSERT_FALSE(::testing::Test::HasFailure());
    }
    if (kills >= 1000) {
        for (u32 verb = 0; verb < static_cast<u32>(Verb::count); ++verb) {
            EXPECT_NE(met[static_cast<Verb>(verb)], 0u) << "no kill met step " << verb;
        }
    }
    expect_sound(directory);

    // All that is left of so many deaths is one machine's worth.
    Store store = make_store(directory);
    for (u32 slot = 0; slot < slots; ++slot) {
        if (account[slot] != nothing) {
            ASSERT_TRUE(store.remove(tag_of(slot)));
        }
    }
    ASSERT_TRUE(save(store, machine_of_thirds(content), "last"));
    const auto collected = store.gc();
    ASSERT_TRUE(collected) << collected.error().message;
    Store fresh = make_store(dir / "fresh");
    ASSERT_TRUE(save(fresh, machine_of_thirds(content), "last"));
    EXPECT_LE(store.stat()->pack_bytes, 2 * fresh.stat()->pack_bytes);
    EXPECT_LE(bytes_below(directory), 3 * bytes_below(dir / "fresh") + (u64{1} << 20));
    expect_sound(directory);
    const Machine last = machine_of_thirds(content);
    const auto restored = restore(directory, "last", last);
    ASSERT_TRUE(restored) << restored.error().message;
    EXPECT_TRUE(restored->same_memory(last));
}

} // namespace
} // namespace nestor::snapshot::testing
