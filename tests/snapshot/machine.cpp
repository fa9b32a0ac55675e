// The made-up machine of the store's tests, and their directories. Compiled once for all of them.
#include "tests/snapshot/machine.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace nestor::snapshot::testing {

TempDir::TempDir(bool in_memory) {
    const std::filesystem::path shm = "/dev/shm";
    const bool use_shm = in_memory && ::access(shm.c_str(), W_OK) == 0;
    const auto base = use_shm ? shm : std::filesystem::temp_directory_path();
    std::string pattern = (base / "nestor-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
}
TempDir::~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

Machine Machine::blank(u64 low, u64 high) {
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

void Machine::fill(std::size_t region, u64 index, u32 value) {
    u8* const at = page(region, index);
    for (u64 i = 0; i < page_size; i += 64) {
        std::memcpy(at + i, &value, sizeof(value));
    }
}

void Machine::fill_noise(std::size_t region, u64 index, std::mt19937_64& random) {
    u8* const at = page(region, index);
    for (u64 i = 0; i < page_size; i += 8) {
        const u64 value = random();
        std::memcpy(at + i, &value, sizeof(value));
    }
}

void Machine::add_images(u32 value, u64 size) {
    Image kernel{"kernel", "console=ttyS0", std::vector<u8>(size)};
    for (u64 at = 0; at < size; at += 64) {
        const u32 word = at < page_size ? 7 : value + static_cast<u32>(at >> page_shift);
        std::memcpy(kernel.bytes.data() + at, &word, std::min<u64>(sizeof(word), size - at));
    }
    images = {std::move(kernel), {"initrd", "", std::vector<u8>(50, static_cast<u8>(value))}};
}

Images Machine::boot_images() const {
    std::vector<Images::File> files;
    for (const Image& image : images) {
        auto bytes = *ImageBytes::make(image.bytes.size());
        std::copy(image.bytes.begin(), image.bytes.end(), bytes->data());
        files.push_back({files.empty() ? ImageKind::kernel : ImageKind::module, image.name, false,
                         image.arguments, std::move(bytes)});
    }
    return *Images::of(std::move(files));
}

Result<> Machine::take_images(const Snapshot& snapshot) {
    Images from = snapshot.images();
    images.clear();
    for (const Images::File& file : TRY(from.load())) {
        const auto bytes = file.bytes->bytes();
        images.push_back({file.name, file.arguments, {bytes.begin(), bytes.end()}});
    }
    return {};
}

std::vector<Region> Machine::regions() const {
    std::vector<Region> regions;
    for (const Memory& m : memory) {
        regions.push_back({m.start, m.bytes.size(), m.bytes.data()});
    }
    return regions;
}

std::vector<RegionTarget> Machine::targets() {
    std::vector<RegionTarget> targets;
    for (Memory& m : memory) {
        targets.push_back({m.start, m.bytes.size(), m.bytes.data()});
    }
    return targets;
}

Machine Machine::garbled() const {
    Machine other = *this;
    other.images.clear();
    for (Memory& m : other.memory) {
        std::memset(m.bytes.data(), 0xa5, m.bytes.size());
    }
    return other;
}

bool Machine::same_memory(const Machine& other) const {
    for (std::size_t i = 0; i < memory.size(); ++i) {
        if (memory[i].bytes != other.memory[i].bytes) {
            return false;
        }
    }
    return memory.size() == other.memory.size() && images == other.images;
}

Result<SaveReport> save(Store& store, const Machine& machine, const std::string& tag,
                        const std::function<void(SaveRequest&)>& adjust) {
    const auto regions = machine.regions();
    Images images = machine.boot_images();
    SaveRequest request;
    request.images = &images;
    request.tag = tag;
    request.units = machine.units;
    request.regions = regions;
    request.contract = machine.contract;
    request.engine_semantics = 1;
    request.provenance.creator = "test";
    adjust(request);
    return store.save(request);
}

Store make_store(const std::string& directory) {
    return std::move(*Store::open(directory, Store::Mode::create));
}

Result<Machine> restore(const std::string& directory, const std::string& tag,
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
    TRY(machine.take_images(snapshot));
    return machine;
}

std::vector<Unit> sorted_units(std::vector<Unit> units) {
    std::sort(units.begin(), units.end(),
              [](const Unit& a, const Unit& b) { return a.name < b.name; });
    return units;
}

std::vector<char> file_bytes(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::string& path, const std::vector<char>& bytes) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::string> all_files(const std::string& directory) {
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
