// A made-up machine and a directory that goes away, for the tests of the store.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <cstring>
#include <stdlib.h>
#include <unistd.h>

#include "snapshot/snapshot.hpp"

namespace nestor::snapshot::testing {

class TempDir final {
public:
    /// In memory where that is wanted and there is /dev/shm: syncing costs nothing there.
    explicit TempDir(bool in_memory = false) {
        const std::filesystem::path shm = "/dev/shm";
        const bool use_shm = in_memory && ::access(shm.c_str(), W_OK) == 0;
        const auto base = use_shm ? shm : std::filesystem::temp_directory_path();
        std::string pattern = (base / "nestor-XXXXXX").string();
        path_ = ::mkdtemp(pattern.data());
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    [[nodiscard]] std::string path() const { return path_; }
    [[nodiscard]] std::string operator/(const std::string& name) const {
        return path_ + "/" + name;
    }

private:
    std::string path_;
};

/// Units and one or two regions of memory.
struct Machine {
    struct Memory {
        Gpa start;
        std::vector<u8> bytes;
    };
    std::vector<Memory> memory;
    std::vector<Unit> units;
    Contract contract{0x77, {std::byte{1}, std::byte{2}, std::byte{3}}};

    /// `low` and `high` pages from address 0 and from 4 GiB on, all zero.
    static Machine blank(u64 low, u64 high = 0) {
        Machine machine;
        machine.memory.push_back({Gpa(0), std::vector<u8>(low * page_size)});
        if (high != 0) {
            machine.memory.push_back({Gpa(u64{1} << 32), std::vector<u8>(high * page_size)});
        }
        for (const char* const name : {"vcpu[0].cpu", "pit", "clock"}) {
            Unit unit{name, 0x1234, std::vector<std::byte>(40)};
            std::memcpy(unit.bytes.data(), name, std::strlen(name));
            machine.units.push_back(unit);
        }
        return machine;
    }

    [[nodiscard]] u8* page(std::size_t region, u64 index) {
        return memory[region].bytes.data() + index * page_size;
    }
    /// Compressible bytes that differ from page to page.
    void fill(std::size_t region, u64 index, u32 value) {
        u8* const at = page(region, index);
        for (u64 i = 0; i < page_size; i += 64) {
            std::memcpy(at + i, &value, sizeof(value));
        }
    }
    /// Bytes that do not compress.
    void fill_noise(std::size_t region, u64 index, std::mt19937_64& random) {
        u8* const at = page(region, index);
        for (u64 i = 0; i < page_size; i += 8) {
            const u64 value = random();
            std::memcpy(at + i, &value, sizeof(value));
        }
    }

    [[nodiscard]] std::vector<Region> regions() const {
        std::vector<Region> regions;
        for (const Memory& m : memory) {
            regions.push_back({m.start, m.bytes.size(), m.bytes.data()});
        }
        return regions;
    }
    [[nodiscard]] std::vector<RegionTarget> targets() {
        std::vector<RegionTarget> targets;
        for (Memory& m : memory) {
            targets.push_back({m.start, m.bytes.size(), m.bytes.data()});
        }
        return targets;
    }
    /// A machine of the same shape with other contents.
    [[nodiscard]] Machine garbled() const {
        Machine other = *this;
        for (Memory& m : other.memory) {
            std::memset(m.bytes.data(), 0xa5, m.bytes.size());
        }
        return other;
    }
    [[nodiscard]] bool same_memory(const Machine& other) const {
        for (std::size_t i = 0; i < memory.size(); ++i) {
            if (memory[i].bytes != other.memory[i].bytes) {
                return false;
            }
        }
        return memory.size() == other.memory.size();
    }
};

/// Saves and returns the result; the request can be changed by `adjust`.
template <class Adjust>
Result<SaveReport> save(Store& store, const Machine& machine, const std::string& tag,
                        const Adjust& adjust) {
    const auto regions = machine.regions();
    SaveRequest request;
    request.tag = tag;
    request.units = machine.units;
    request.regions = regions;
    request.contract = machine.contract;
    request.engine_semantics = 1;
    request.provenance.creator = "test";
    adjust(request);
    return store.save(request);
}

inline Result<SaveReport> save(Store& store, const Machine& machine, const std::string& tag) {
    return save(store, machine, tag, [](SaveRequest&) {});
}

inline Store make_store(const std::string& directory) {
    return std::move(*Store::open(directory, Store::Mode::create));
}

/// Loads and restores over garbage; the error of whatever failed.
inline Result<Machine> restore(const std::string& directory, const std::string& tag,
                               const Machine& shape) {
    const Store store = TRY(Store::open(directory, Store::Mode::existing));
    const Snapshot snapshot = TRY(store.load(tag));
    Machine machine = shape.garbled();
    machine.units.assign(snapshot.units().begin(), snapshot.units().end());
    machine.contract = snapshot.manifest().contract;
    const auto targets = machine.targets();
    ReadOptions options;
    options.threads = shape.memory.empty() || shape.memory[0].bytes.size() < (1u << 20) ? 1 : 2;
    TRY(snapshot.read_all(targets, options));
    return machine;
}

inline std::vector<Unit> sorted_units(std::vector<Unit> units) {
    std::sort(units.begin(), units.end(),
              [](const Unit& a, const Unit& b) { return a.name < b.name; });
    return units;
}

inline std::vector<char> file_bytes(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::string& path, const std::vector<char>& bytes) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// Paths of all regular files below a directory, sorted.
inline std::vector<std::string> all_files(const std::string& directory) {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        if (entry.is_regular_file()) {
            files.push_back(entry.path().string());
        }
    }
    std::sort(files.begin(), files.end());
    return files;
}

} // namespace nestor::snapshot::testing
