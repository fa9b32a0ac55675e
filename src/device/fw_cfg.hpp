// QEMU's firmware configuration device, port interface without DMA (QEMU docs/specs/fw_cfg).
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/state/board.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// A range of the guest-physical address map as E820 names it (ACPI 6.4, 15.1).
struct E820Entry {
    enum class Type : u32 { ram = 1, reserved = 2, acpi = 3 };
    u64 start = 0;
    u64 size = 0;
    Type type = Type::ram;
};

/// Selector at 0x510 (16 bits), data at 0x511 (one byte at a time, zeros after the end).
class FwCfg final {
public:
    struct Config {
        u64 memory = 0;
        u16 cpus = 1;
        std::span<const E820Entry> memory_map;
    };
    explicit FwCfg(const Config& config);

    [[nodiscard]] u8 read_data();
    void select(u16 key);
    [[nodiscard]] u16 selected() const { return s_.selector; }

    void reset() { s_ = {}; }
    [[nodiscard]] const state::FwCfg& save() const { return s_; }
    void load(const state::FwCfg& from) { s_ = from; }

private:
    void add_file(const std::string& name, std::vector<u8> content);
    void finish_directory();

    std::map<u16, std::vector<u8>> items_; ///< constant after construction
    std::vector<std::pair<std::string, u16>> files_;
    state::FwCfg s_;
};

} // namespace nestor::device
