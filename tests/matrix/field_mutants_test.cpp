// Comparing with oneself proves little: here every field of a vCPU's units is lost in turn on the
// way through a save, and the matrix has to notice. unseen_fields.list has those that it cannot
// notice, with reasons. MUTANTS=all tries also those in every case.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "tests/matrix/fields.hpp"
#include "tests/matrix/test_support.hpp"

namespace nestor::matrix {
namespace {

/// A row of the list: a path and the reason. With '*' behind it is the beginning of paths, and
/// speaks of fields that have their defaults everywhere, not of those that can be lost.
struct Unseen {
    std::string pattern;
    std::string reason;
    bool needed = false;

    [[nodiscard]] bool is(const Field& field) const {
        return pattern == field.path || pattern == field.schema_path;
    }
    [[nodiscard]] bool covers(const Field& field) const {
        return is(field) || (pattern.ends_with('*') &&
                             field.schema_path.starts_with(
                                 std::string_view(pattern).substr(0, pattern.size() - 1)));
    }
};

std::vector<Unseen> unseen_fields() {
    std::vector<Unseen> rows;
    std::ifstream in(variable("UNSEEN_FIELDS", ""));
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line.starts_with('#')) {
            continue;
        }
        std::istringstream words(line);
        Unseen row;
        words >> row.pattern >> std::ws;
        std::getline(words, row.reason);
        EXPECT_FALSE(row.reason.empty()) << row.pattern << " has no reason";
        rows.push_back(row);
    }
    return rows;
}

class FieldMutants : public testing::Test {
protected:
    void SetUp() override {
        ASSERT_FALSE(guest_image().empty()) << "GUEST names no image";
        ASSERT_FALSE(rows_.empty()) << "UNSEEN_FIELDS names no list";
        for (const Levels& levels : all_pairs()) {
            const auto saved = situations_.reach(levels);
            ASSERT_TRUE(saved.has_value()) << to_text(levels);
            cases_.push_back({levels, *saved});
        }
    }

    struct Case {
        Levels levels;
        const Saved* saved;
    };

    /// Cases in which losing the field changes what is loaded.
    std::vector<Case> cases_with(const Field& field) const {
        std::vector<Case> with;
        std::copy_if(cases_.begin(), cases_.end(), std::back_inserter(with),
                     [&](const Case& c) { return !is_default(c.saved->vcpu, field); });
        return with;
    }

    bool noticed(const Field& field, const std::vector<Case>& cases, std::size_t most) {
        for (std::size_t i = 0; i < std::min(most, cases.size()); ++i) {
            const auto differences = situations_.differences(
                cases[i].levels, [&](state::Vcpu& vcpu) { reset(vcpu, field); });
            if (!differences || !differences->empty()) {
                return true;
            }
        }
        return false;
    }

    Unseen* row_of(const Field& field, bool (Unseen::*fits)(const Field&) const) {
        const auto found = std::find_if(rows_.begin(), rows_.end(),
                                        [&](const Unseen& row) { return (row.*fits)(field); });
        return found != rows_.end() ? &*found : nullptr;
    }

    Situations situations_{guest_image()};
    std::vector<Unseen> rows_ = unseen_fields();
    std::vector<Case> cases_;
};

/// Of a field that is listed, so many cases are tried in the quick form.
constexpr std::size_t sample = 4;

TEST_F(FieldMutants, AFieldThatIsLostOnTheWayIsNoticedOrListed) {
    const bool all = variable("MUTANTS", "quick") == "all";
    unsigned noticed_count = 0, unnoticed = 0, untouched = 0;
    std::vector<std::string> touched; // schema paths
    for (const Field& field : vcpu_fields()) {
        const auto cases = cases_with(field);
        if (cases.empty()) {
            continue;
        }
        touched.push_back(field.schema_path);
        Unseen* const row = row_of(field, &Unseen::is);
        if (noticed(field, cases, row == nullptr || all ? cases.size() : sample)) {
            ++noticed_count;
            EXPECT_EQ(row, nullptr) << field.path << " is listed as unseen, but is noticed";
            continue;
        }
        ++unnoticed;
        EXPECT_NE(row, nullptr) << field.path << " can be lost and nothing notices";
        if (row != nullptr) {
            row->needed = true;
        }
    }
    std::string last;
    for (const Field& field : vcpu_fields()) {
        const bool seen =
            std::find(touched.begin(), touched.end(), field.schema_path) != touched.end();
        if (seen || field.schema_path == last) {
            continue;
        }
        last = field.schema_path;
        ++untouched;
        Unseen* const row = row_of(field, &Unseen::covers);
        EXPECT_NE(row, nullptr) << field.schema_path << " has its default value in every case";
        if (row != nullptr) {
            row->needed = true;
        }
    }
    for (const Unseen& row : rows_) {
        EXPECT_TRUE(row.needed) << row.pattern << " is listed for nothing";
    }
    std::printf("%zu cases; fields lost and noticed: %u, lost and unnoticed: %u; "
                "schema fields at their defaults everywhere: %u\n",
                cases_.size(), noticed_count, unnoticed, untouched);
}

} // namespace
} // namespace nestor::matrix
