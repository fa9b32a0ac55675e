// Capabilities and CPUID: what a vCPU's CPUID entries mean for the silicon and for L0.
//
// Owns nothing. The guest's CPUID is data (state::CpuidEntry), made from the model when the machine
// is made and saved with it; capabilities are derived from that, masked by the engine's features
// (cpu_feature.def), so a restored machine keeps what it was promised even if a later engine offers
// more.
#include "engine/hypervisor/cpu_caps.hpp"

#include <fmt/format.h>

#include "engine/arch/bits.hpp"
#include "engine/arch/xstate.hpp"

namespace nestor::hv {

using arch::CpuFeature;
using arch::CpuidWord;

namespace {

constexpr u32 leaf_basic = 0x1;
constexpr u32 leaf_topology = 0xb;
constexpr u32 leaf_xstate = 0xd;

constexpr std::array<u32, arch::cpuid_words> engine_words = [] {
    std::array<u32, arch::cpuid_words> words{};
    for (const arch::CpuFeatureInfo& f : arch::cpu_features) {
        words[static_cast<std::size_t>(f.word)] |= u32{1} << f.bit;
    }
    return words;
}();

/// Instruction sets that need no feature bit.
constexpr auto baseline = std::to_array<ZydisISASet>({
    ZYDIS_ISA_SET_I86,
    ZYDIS_ISA_SET_I186,
    ZYDIS_ISA_SET_I286PROTECTED,
    ZYDIS_ISA_SET_I286REAL,
    ZYDIS_ISA_SET_I386,
    ZYDIS_ISA_SET_I486,
    ZYDIS_ISA_SET_I486REAL,
    ZYDIS_ISA_SET_PENTIUMREAL,
    ZYDIS_ISA_SET_PPRO,
    ZYDIS_ISA_SET_FAT_NOP,
    ZYDIS_ISA_SET_RDPMC,
    ZYDIS_ISA_SET_LAHF,
});

/// Names of Zydis ISA sets as values, so that the .def needs no prefix.
namespace sets {
#define SET(name) constexpr ZydisISASet name = ZYDIS_ISA_SET_##name
SET(X87);
SET(CMOV);
SET(FCMOV);
SET(CLFSH);
SET(PENTIUMMMX);
SET(FXSAVE);
SET(FXSAVE64);
SET(SSE);
SET(SSEMXCSR);
SET(SSE_PREFETCH);
SET(SSE2);
SET(SSE2MMX);
SET(PAUSE);
SET(SSE3);
SET(SSE3X87);
SET(PCLMULQDQ);
SET(MONITOR);
SET(SSSE3);
SET(SSSE3MMX);
SET(FMA);
SET(CMPXCHG16B);
SET(SSE4);
SET(SSE42);
SET(MOVBE);
SET(POPCNT);
SET(AES);
SET(XSAVE);
SET(AVX);
SET(AVXAES);
SET(F16C);
SET(RDRAND);
SET(RDWRFSGS);
SET(BMI1);
SET(AVX2);
SET(AVX2GATHER);
SET(BMI2);
SET(INVPCID);
SET(RDSEED);
SET(ADOX_ADCX);
SET(SMAP);
SET(CLFLUSHOPT);
SET(CLWB);
SET(SHA);
SET(PKU);
SET(RDPID);
SET(XSAVEOPT);
SET(XSAVEC);
SET(XSAVES);
SET(LZCNT);
SET(PREFETCH_NOP);
SET(RDTSCP);
SET(LONGMODE);
SET(VTX);
SET(VMFUNC);
#undef SET
} // namespace sets

void add_sets(cpu::IsaMask& mask, std::initializer_list<ZydisISASet> list) {
    for (const ZydisISASet set : list) {
        mask.set(set);
    }
}

} // namespace

u32 cpuid_register(const state::CpuidEntry& e, unsigned reg) {
    const u32 values[] = {e.eax, e.ebx, e.ecx, e.edx};
    return values[reg];
}

const state::CpuidEntry* find_cpuid(std::span<const state::CpuidEntry> entries, u32 leaf,
                                    u32 subleaf) {
    for (const state::CpuidEntry& e : entries) {
        if (e.leaf == leaf && (!e.has_subleaf || e.subleaf == subleaf)) {
            return &e;
        }
    }
    return nullptr;
}

CpuCaps::CpuCaps(std::span<const state::CpuidEntry> cpuid)
    : CpuCaps(cpuid, engine_offer().features) {}

CpuCaps::CpuCaps(std::span<const state::CpuidEntry> cpuid,
                 const std::array<u32, arch::cpuid_words>& granted) {
    for (std::size_t w = 0; w < arch::cpuid_words; ++w) {
        const arch::CpuidRegister& r = arch::cpuid_registers[w];
        const state::CpuidEntry* e = find_cpuid(cpuid, r.leaf, r.subleaf);
        words_[w] = e == nullptr ? 0 : cpuid_register(*e, r.reg) & granted[w];
    }
}

const CpuOffer& engine_offer() {
    static constexpr CpuOffer offer = [] {
        CpuOffer o;
        o.features = engine_words;
        o.xcr0 = arch::xcr0::x87 | arch::xcr0::sse;
        for (const arch::XComponent& c : arch::xcomponents) {
            (c.supervisor ? o.xss : o.xcr0) |= u64{1} << c.number;
        }
        return o;
    }();
    return offer;
}

u64 xcr0_of(const CpuCaps& caps) {
    using namespace arch;
    const auto allow = [&](CpuFeature feature, u64 mask) { return caps.has(feature) ? mask : 0; };
    return xcr0::x87 | allow(CpuFeature::sse, xcr0::sse) | allow(CpuFeature::avx, xcr0::avx) |
           allow(CpuFeature::pku, xcr0::pkru);
}

Result<std::vector<state::CpuidEntry>> cpu_model_cpuid(std::string_view name, u16 index,
                                                       u16 count) {
    const CpuModel* const model = find_model(name);
    if (model == nullptr) {
        return unknown_model(name, cpu_models());
    }
    return cpu_model_cpuid(*model, index, count);
}

Failure unknown_model(std::string_view name, std::span<const CpuModel* const> models) {
    std::string known;
    for (const CpuModel* model : models) {
        known += (known.empty() ? "" : ", ") + std::string(model->name);
    }
    return fail(ErrorCode::usage, fmt::format("unknown CPU model '{}'", name),
                "known models: " + known);
}

cpu::Features silicon_features(std::span<const state::CpuidEntry> cpuid) {
    using namespace arch;
    const CpuCaps caps(cpuid);
    cpu::Features f;
    for (const ZydisISASet set : baseline) {
        f.isa.set(set);
    }
    using namespace sets;
#define CPU_FEATURE(word, bit, name, ...)                                                          \
    if (caps.has(CpuFeature::name)) {                                                              \
        add_sets(f.isa, {__VA_ARGS__});                                                            \
    }
#include "engine/arch/cpu_feature.def"
#undef CPU_FEATURE
    if (const state::CpuidEntry* e = find_cpuid(cpuid, 0x80000008, 0); e != nullptr) {
        f.physical_bits = static_cast<u8>(e->eax & 0xff);
    }
    const auto allow = [&](CpuFeature feature, u64 mask) { return caps.has(feature) ? mask : 0; };
    const u64 cr4_known =
        allow(CpuFeature::vme, cr4::vme | cr4::pvi) | allow(CpuFeature::tsc, cr4::tsd) |
        allow(CpuFeature::de, cr4::de) | allow(CpuFeature::pse, cr4::pse) |
        allow(CpuFeature::pae, cr4::pae) | allow(CpuFeature::mce, cr4::mce) |
        allow(CpuFeature::pge, cr4::pge) | cr4::pce | allow(CpuFeature::fxsr, cr4::osfxsr) |
        allow(CpuFeature::sse, cr4::osxmmexcpt) | allow(CpuFeature::umip, cr4::umip) |
        allow(CpuFeature::la57, cr4::la57) | allow(CpuFeature::fsgsbase, cr4::fsgsbase) |
        allow(CpuFeature::pcid, cr4::pcide) | allow(CpuFeature::xsave, cr4::osxsave) |
        allow(CpuFeature::smep, cr4::smep) | allow(CpuFeature::smap, cr4::smap) |
        allow(CpuFeature::pku, cr4::pke) | allow(CpuFeature::vmx, cr4::vmxe);
    f.cr4_reserved = ~cr4_known;
    f.efer_reserved =
        ~(allow(CpuFeature::syscall, efer::sce) |
          allow(CpuFeature::long_mode, efer::lme | efer::lma) | allow(CpuFeature::nx, efer::nxe));
    f.xcr0_allowed = xcr0_of(caps);
    f.xss_allowed = 0;
    f.gigabyte_pages = caps.has(CpuFeature::gbpages);
    f.nx = caps.has(CpuFeature::nx);
    f.la57 = caps.has(CpuFeature::la57);
    return f;
}

CpuidResult cpuid(std::span<const state::CpuidEntry> entries, const state::Cpu& cpu, u64 apic_base,
                  u32 leaf, u32 subleaf) {
    const state::CpuidEntry* e = find_cpuid(entries, leaf, subleaf);
    if (e == nullptr) {
        const u32 top = leaf >= 0x80000000 ? 0x80000000 : 0;
        const state::CpuidEntry* limit = find_cpuid(entries, top, 0);
        const bool beyond = limit == nullptr || leaf > limit->eax;
        if (!beyond || leaf >= 0x80000000) {
            return leaf == leaf_topology ? CpuidResult{0, 0, subleaf & 0xff, 0} : CpuidResult{};
        }
        // Above the highest basic leaf: the data of the highest one (SDM 2A, CPUID).
        e = find_cpuid(entries, limit->eax, subleaf);
        if (e == nullptr) {
            return {};
        }
    }
    CpuidResult r{e->eax, e->ebx, e->ecx, e->edx};
    if (e->leaf == leaf_basic) {
        r.ecx |= (cpu.cr4 & arch::cr4::osxsave) != 0 ? u32{1} << 27 : 0;
        r.edx &= (apic_base & bit(11)) != 0 ? ~u32{0} : ~(u32{1} << 9);
    } else if (e->leaf == 7 && e->subleaf == 0) {
        r.ecx |= (cpu.cr4 & arch::cr4::pke) != 0 ? u32{1} << 4 : 0;
    } else if (e->leaf == leaf_xstate && e->subleaf == 0) {
        r.ebx = arch::xsave_standard_size(cpu.xcr0);
    } else if (e->leaf == leaf_xstate && e->subleaf == 1) {
        r.ebx = arch::xsave_compacted_size(cpu.xcr0 | cpu.xss);
    }
    return r;
}

} // namespace nestor::hv
