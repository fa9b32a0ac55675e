// Statements that consume what is pending, or that serve what a restore asks for, are left out one
// at a time while a machine is restored and runs on; the machine that it is compared with has them
// all. code_mutants.list names them, with a reason where the matrix cannot notice.
//
// The engine's sources are compiled into this test from copies (instrument.py), so the product
// knows nothing of it. A mutant runs in a process of its own, because it may end in a failed CHECK
// or in a loop; both count as noticed.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/matrix/left_out.hpp"
#include "tests/matrix/test_support.hpp"

namespace nestor::matrix {

namespace {

std::string running; ///< the mutant, while a restored machine runs

struct Mutant {
    std::string name;
    std::string reason; ///< why it cannot be noticed; empty when it is to be
};

std::vector<Mutant> mutants() {
    std::vector<Mutant> all;
    std::ifstream in(variable("CODE_MUTANTS", ""));
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line.starts_with('#')) {
            continue;
        }
        std::vector<std::string> columns;
        const std::string bar = " | ";
        for (std::size_t at = 0, end = 0; end != std::string::npos; at = end + bar.size()) {
            end = line.find(bar, at);
            columns.push_back(line.substr(at, end - at));
        }
        all.push_back({columns[0], columns.size() > 3 ? columns[3] : ""});
    }
    return all;
}

/// Of a mutant that is listed as unnoticed, one case of so many is tried in the quick form.
constexpr std::size_t stride = 6;
constexpr rlim_t cpu_seconds = 60;

class CodeMutants : public testing::Test {
protected:
    void SetUp() override {
        ASSERT_FALSE(guest_image().empty()) << "GUEST names no image";
        ASSERT_FALSE(mutants_.empty()) << "CODE_MUTANTS names no list";
        for (const Levels& levels : cases_) {
            const auto differences = situations_.differences(levels);
            ASSERT_TRUE(differences && differences->empty()) << to_text(levels);
        }
    }

    /// Tries one case of `step`.
    bool noticed(const Mutant& mutant, std::size_t step) {
        const pid_t child = fork();
        if (child == 0) {
            const rlimit limit{cpu_seconds, cpu_seconds};
            setrlimit(RLIMIT_CPU, &limit);
            std::fclose(stderr);
            running = mutant.name;
            bool found = false;
            for (std::size_t i = 0; i < cases_.size() && !found; i += step) {
                const auto differences = situations_.differences(cases_[i]);
                found = !differences || !differences->empty();
            }
            _exit(found ? 1 : 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        return status != 0;
    }

    Situations situations_{guest_image()};
    std::vector<Levels> cases_ = all_pairs();
    std::vector<Mutant> mutants_ = mutants();
};

} // namespace

bool left_out(std::string_view mutant) { return mutant == running; }

namespace {

TEST_F(CodeMutants, AStatementThatIsLeftOutIsNoticedOrListed) {
    const bool all = variable("MUTANTS", "quick") == "all";
    unsigned noticed_count = 0;
    for (const Mutant& mutant : mutants_) {
        const bool listed = !mutant.reason.empty();
        const bool found = noticed(mutant, listed && !all ? stride : 1);
        noticed_count += found ? 1 : 0;
        EXPECT_NE(found, listed) << mutant.name
                                 << (listed ? " is listed as unnoticed, but is noticed"
                                            : " can be left out and nothing notices");
    }
    std::printf("%zu cases; statements left out and noticed: %u of %zu\n", cases_.size(),
                noticed_count, mutants_.size());
}

} // namespace
} // namespace nestor::matrix
