// For fuzzers: an unbroken run of a vCPU beside one that is saved, encoded, decoded and loaded into
// a fresh host every few counts, with another TLB size. Both end in the same state and memory.
#pragma once

#include <algorithm>
#include <cstdio>
#include <variant>

#include "engine/hypervisor/vcpu.hpp"
#include "engine/state/codec.hpp"
#include "src/base/check.hpp"

namespace nestor::hv {

/// Runs one leg, its device accesses answered with a constant. False: the vCPU has nothing more to
/// do.
inline bool run_leg(Vcpu& vcpu, u64& count, u64 until) {
    for (;;) {
        const TimeBase base{Icount(count), Ticks(count), 1, 1};
        const Exit exit = vcpu.run(base, Icount(until));
        CHECK(vcpu.count().value() >= count && vcpu.count().value() <= until);
        count = vcpu.count().value();
        if (std::holds_alternative<CountReached>(exit)) {
            return true;
        }
        if (std::holds_alternative<PortAccess>(exit) || std::holds_alternative<MmioAccess>(exit)) {
            vcpu.complete(0x5a5a5a5a5a5a5a5a);
        } else if (!std::holds_alternative<Yielded>(exit) &&
                   !std::holds_alternative<EoiBroadcast>(exit)) {
            return false;
        }
    }
}

/// Runs `whole` up to the count `most`, then the same in legs of `leg` counts. `whole` stands at
/// its start and has a vCPU and its RAM as members; `make(ram, tlb_entries)` gives a
/// std::unique_ptr to another such host.
template <class Host, class Make>
void check_saved_legs(Host& whole, u64 leg, u64 most, Make&& make) {
    auto broken = make(whole.ram, 1);
    CHECK(broken->vcpu.load(whole.vcpu.save()).has_value());
    u64 whole_count = 0;
    run_leg(whole.vcpu, whole_count, most);

    u64 count = 0;
    while (run_leg(broken->vcpu, count, std::min(count + leg, most)) && count < most) {
        const auto bytes = state::encode(broken->vcpu.save());
        const auto decoded = state::decode<state::Vcpu>(bytes);
        CHECK(decoded.has_value());
        auto fresh = make(broken->ram, 1);
        const auto loaded = fresh->vcpu.load(*decoded);
        if (!loaded) {
            std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
        }
        CHECK(loaded.has_value());
        broken = std::move(fresh);
    }
    CHECK(count == whole_count, {count, whole_count});
    const auto differences = state::diff(whole.vcpu.save(), broken->vcpu.save());
    for (const auto& d : differences) {
        std::fprintf(stderr, "%s: whole %s, broken %s\n", d.path.c_str(), d.left.c_str(),
                     d.right.c_str());
    }
    CHECK(differences.empty());
    CHECK(whole.ram == broken->ram);
}

} // namespace nestor::hv
