// Released CPU models, and what is made of one for a vCPU.
//
// Owns the list of models. What a vCPU's place adds to the model's leaves is here (SDM 2A, CPUID
// leaves 1, 4 and 0BH); the digests in models/released.hpp hold it as well as the data.
#include "engine/hypervisor/cpu_model.hpp"

#include <algorithm>
#include <bit>

#include "engine/hypervisor/models/released.hpp"
#include "engine/state/codec.hpp"

namespace nestor::hv {
namespace {

constexpr u16 digested_counts = 16;

using models::released;

constexpr auto models_here = [] {
    std::array<const CpuModel*, released.size()> models{};
    for (std::size_t i = 0; i < models.size(); ++i) {
        models[i] = released[i].model;
    }
    return models;
}();

static_assert(
    [] {
        for (const ReleasedModel& r : released) {
            const auto& leaves = r.model->leaves;
            for (std::size_t i = 1; i < leaves.size(); ++i) {
                const auto place = [&](std::size_t n) {
                    return u64{leaves[n].leaf} << 32 | leaves[n].subleaf;
                };
                if (place(i - 1) >= place(i)) {
                    return false;
                }
            }
        }
        return true;
    }(),
    "a model's leaves are in ascending order, and none is there twice");

/// What depends on the vCPU's place among `count`.
void place_entry(state::CpuidEntry& e, u16 index, u16 count) {
    const u32 shift = static_cast<u32>(std::bit_width(static_cast<unsigned>(count - 1)));
    switch (e.leaf) {
    case 0x1:
        e.ebx |= u32{index} << 24 | u32{count} << 16;
        e.edx &= count == 1 ? ~(u32{1} << 28) : ~u32{0}; // HTT
        break;
    case 0x4:
        e.eax |= ((u32{1} << shift) - 1) << 26;
        if (e.subleaf == 3) {
            e.eax |= ((u32{1} << shift) - 1) << 14; // L3 is shared by all
        }
        break;
    case 0xb:
        e.edx = index;
        if (e.subleaf == 1) {
            e.eax = shift;
            e.ebx = count;
        }
        break;
    default:
        break;
    }
}

} // namespace

std::span<const ReleasedModel> released_models() { return released; }
std::span<const CpuModel* const> cpu_models() { return models_here; }
const CpuModel& default_model() { return models::nestor_v1::model; }

const CpuModel* find_model(std::string_view name, std::span<const CpuModel* const> models) {
    const auto found =
        std::find_if(models.begin(), models.end(), [&](const auto* m) { return m->name == name; });
    return found != models.end() ? *found : nullptr;
}

std::vector<state::CpuidEntry> cpu_model_cpuid(const CpuModel& model, u16 index, u16 count) {
    std::vector<state::CpuidEntry> entries(model.leaves.begin(), model.leaves.end());
    for (state::CpuidEntry& e : entries) {
        place_entry(e, index, count);
    }
    return entries;
}

Digest digest_of(const CpuModel& model) {
    Hasher hasher;
    for (u16 count = 1; count <= digested_counts; ++count) {
        for (u16 index = 0; index < count; ++index) {
            hasher.add(state::encode(state::CpuModel{cpu_model_cpuid(model, index, count)}));
        }
    }
    hasher.add(u64{model.msrs.size()});
    for (const u32 msr : model.msrs) {
        hasher.add(u64{msr});
    }
    for (const MsrConstant& c : model.constants) {
        hasher.add(u64{c.index});
        hasher.add(c.value);
    }
    return hasher.finish();
}

arch::VmxCapabilities vmx_of(const CpuModel& model) {
    arch::VmxCapabilities vmx;
    for (const MsrConstant& c : model.constants) {
        if (u64* const value = vmx.find(c.index)) {
            *value = c.value;
        }
    }
    return vmx;
}

MsrSet::MsrSet(const CpuModel& model) {
    for (const u32 msr : model.msrs) {
        if (const auto row = arch::msr_row(msr)) {
            present_.set(static_cast<std::size_t>(*row));
        }
    }
    for (const MsrConstant& c : model.constants) {
        if (const auto row = arch::msr_row(c.index)) {
            constants_[static_cast<std::size_t>(*row)] = c.value;
        }
    }
}

} // namespace nestor::hv
