// One case of the matrix on machines: reach the situation, save, restore, run on, compare.
//
// The guest is tests/guests/l2_matrix.asm: its L1 and L2 do what the case's levels ask for. A
// machine that reached a situation is kept, and so is the end of the machine that was not stopped,
// because many cases share them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/state/vcpu.hpp"
#include "src/base/digest.hpp"
#include "src/machine/machine.hpp"
#include "tests/matrix/factors.hpp"

namespace nestor::matrix {

/// RAM that is not zero.
using Image = std::map<u64, std::vector<u8>>;

/// A machine that stands in the situation.
struct Saved {
    u64 count = 0;
    std::vector<machine::Unit> others; ///< units that are no vCPU's
    state::Vcpu vcpu;
    Image memory;
    std::map<u64, Digest> pages; ///< of `memory`
};

/// What a machine is at its end: with what no guest can see, because by then all of L0's conditions
/// have been carried out.
struct End {
    std::string stop;
    u64 count = 0;
    std::map<std::string, std::vector<std::byte>> units;
    state::Vcpu vcpu;
    Digest vcpu_digest, guest_digest;
    std::map<u64, Digest> pages;
};

/// Changes what was saved before it is loaded.
using Change = std::function<void(state::Vcpu&)>;

class Situations {
public:
    /// `guest` is the image of l2_matrix.
    explicit Situations(std::vector<u8> guest);

    /// The machine saved in the case's situation. A failure when it was not reached.
    [[nodiscard]] Result<const Saved*> reach(const Levels& levels);
    /// Restores into a fresh machine, runs it to its end, and tells in what it differs from the
    /// machine that was never stopped; empty when in nothing. A failure: not reached.
    [[nodiscard]] Result<std::vector<std::string>> differences(const Levels& levels,
                                                               const Change& change = {});

private:
    [[nodiscard]] std::unique_ptr<machine::Machine> boot(const Levels& levels) const;
    [[nodiscard]] Result<Saved> make_saved(const Levels& levels) const;
    [[nodiscard]] Result<const End*> unbroken(const Levels& levels, u64 count);
    [[nodiscard]] Result<End> restored(const Levels& levels, const Saved& saved,
                                       const Change& change) const;

    std::vector<u8> guest_;
    std::map<std::string, Result<Saved>> saved_;
    std::map<std::string, End> unbroken_;
};

} // namespace nestor::matrix
