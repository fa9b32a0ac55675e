// QEMU's firmware configuration device.
//
// Owns the items, which follow from the machine's configuration and never change, and the position
// of the reader. Numbers are little endian, those of the file directory big endian, as QEMU's
// docs/specs/fw_cfg.rst has it.
#include "src/device/fw_cfg.hpp"

#include <string_view>

namespace nestor::device {
namespace {

constexpr u16 key_signature = 0x00;
constexpr u16 key_id = 0x01;
constexpr u16 key_ram_size = 0x03;
constexpr u16 key_no_graphic = 0x04;
constexpr u16 key_cpus = 0x05;
constexpr u16 key_max_cpus = 0x0f;
constexpr u16 key_file_directory = 0x19;
constexpr u16 key_first_file = 0x20;

constexpr std::size_t file_name_size = 56;

template <class T>
void put_little(std::vector<u8>& out, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        out.push_back(static_cast<u8>(value >> (8 * i)));
    }
}

template <class T>
void put_big(std::vector<u8>& out, T value) {
    for (std::size_t i = sizeof(T); i-- > 0;) {
        out.push_back(static_cast<u8>(value >> (8 * i)));
    }
}

template <class T>
std::vector<u8> number(T value) {
    std::vector<u8> out;
    put_little(out, value);
    return out;
}

} // namespace

FwCfg::FwCfg(const Config& config) {
    items_[key_signature] = {'Q', 'E', 'M', 'U'};
    items_[key_id] = number(u32{1}); // port interface, no DMA
    items_[key_ram_size] = number(config.memory);
    items_[key_no_graphic] = number(u16{1});
    items_[key_cpus] = number(config.cpus);
    items_[key_max_cpus] = number(config.cpus);
    std::vector<u8> map;
    for (const E820Entry& entry : config.memory_map) {
        put_little(map, entry.start);
        put_little(map, entry.size);
        put_little(map, static_cast<u32>(entry.type));
    }
    add_file("etc/e820", std::move(map));
    finish_directory();
}

void FwCfg::add_file(const std::string& name, std::vector<u8> content) {
    const u16 key = static_cast<u16>(key_first_file + files_.size());
    items_[key] = std::move(content);
    files_.emplace_back(name, key);
}

void FwCfg::finish_directory() {
    std::vector<u8>& directory = items_[key_file_directory];
    put_big(directory, static_cast<u32>(files_.size()));
    for (const auto& [name, key] : files_) {
        put_big(directory, static_cast<u32>(items_[key].size()));
        put_big(directory, key);
        put_big(directory, u16{0});
        std::string padded = name;
        padded.resize(file_name_size);
        directory.insert(directory.end(), padded.begin(), padded.end());
    }
}

void FwCfg::select(u16 key) {
    s_.selector = key;
    s_.offset = 0;
}

u8 FwCfg::read_data() {
    const auto item = items_.find(s_.selector);
    if (item == items_.end() || s_.offset >= item->second.size()) {
        return 0;
    }
    return item->second[s_.offset++];
}

} // namespace nestor::device
