// A relay: a machine saved and continued by a fresh process, many times over.
#pragma once

#include <string>
#include <vector>

#include "src/control/keeper.hpp"
#include "tests/relay/strata.hpp"

namespace nestor::relay {

struct Options {
    std::string kernel;
    std::string initrd;
    std::string append;
    u64 memory = u64{64} << 20;
    u16 cpus = 1;
    u64 legs = 300;
    u64 seed = 1;
    u64 patience = 40000; ///< instructions that a rare moment is sought for
    u64 rare = 12;        ///< legs for each rare stratum
    std::vector<Stratum> required;
    std::optional<Stratum> impossible; ///< the one stratum that this guest cannot be in
    std::string why_impossible;
    std::vector<unsigned> tlbs; ///< sizes that have to give the same digest
    std::string scratch;        ///< directory for stores and output
};

/// How a run ended, or where a leg did.
struct End {
    u64 count = 0;
    u64 kind = 0; ///< machine::Stop::Kind
    u64 exit_status = 0;
    std::string digest;
    bool operator==(const End&) const = default;
};

/// A save point, and what the unbroken machine is there.
struct Point {
    u64 count = 0;
    Strata strata = 0;
    std::string digest;
};

/// One leg: what a fresh process is told.
struct Leg {
    std::string from_store; ///< empty: boot
    std::string from_tag;
    u64 to = 0; ///< all ones: the end
    std::string to_store;
    std::string to_tag; ///< empty: do not save
    std::string output; ///< file that the guest's output is appended to
    bool lazy = false;
    bool frozen = false; ///< every page has to be copied before it changes
    bool twice = false;  ///< check that saving what was restored gives identical bytes
    unsigned tlb = 1024;
};

[[nodiscard]] Result<std::unique_ptr<control::Keeper>> boot(const Options& options,
                                                            unsigned tlb = 1024);
/// Runs to `count` or the end, filling pages that are needed.
[[nodiscard]] Result<machine::Stop> run_to(control::Keeper& keeper, u64 count);
[[nodiscard]] Result<End> end_of(control::Keeper& keeper, const machine::Stop& stop);

[[nodiscard]] Result<End> run_leg(const Options& options, const Leg& leg);

/// Prints which fields and pages of a saved machine are not those of the unbroken one at `count`.
[[nodiscard]] Result<> explain(const Options& options, u64 count, const std::string& store,
                               const std::string& tag);

} // namespace nestor::relay
