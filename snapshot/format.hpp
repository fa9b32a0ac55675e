// The fixed-layout parts of the store's files, as they lie on disk. Little endian, no padding;
// always copied in and out, never cast. Internal to snapshot.
#pragma once

#include <bit>
#include <cstring>
#include <span>
#include <type_traits>

#include "src/base/digest.hpp"
#include "src/base/types.hpp"

namespace nestor::snapshot {

/// The remedy where bytes do not agree with their digests.
inline constexpr const char* damage_remedy =
    "check the store with vm store fsck; another copy may still be whole";

static_assert(std::endian::native == std::endian::little, "the store is read by plain copies");

struct PackHeader {
    char magic[8];
    u32 version;
    u32 id;
    u8 zero[16];
    Digest digest;
};
static_assert(sizeof(PackHeader) == 64);
inline constexpr char pack_magic[8] = {'n', 'e', 's', 't', 'p', 'a', 'c', 'k'};

struct PackTrailer {
    char magic[8];
    u32 version;
    u32 records;
    u64 directory;
    u64 file_size;
    Digest digest;
};
static_assert(sizeof(PackTrailer) == 64);
inline constexpr char pack_end_magic[8] = {'n', 'e', 's', 't', 'p', 'e', 'n', 'd'};

struct RecordHeader {
    u32 magic;
    u16 kind;
    u16 items;
    u32 raw_size;
    u32 stored_size;
    u32 encoding;
    u32 zero;
};
static_assert(sizeof(RecordHeader) == 24);
inline constexpr u32 record_magic = 0x4345524e; // "NREC"
inline constexpr u32 encoding_plain = 0;
inline constexpr u32 encoding_zstd = 1;

inline constexpr std::size_t record_head = sizeof(RecordHeader) + sizeof(Digest);
inline constexpr std::size_t item_size = sizeof(Digest) + sizeof(u32);

template <class T>
    requires std::is_trivially_copyable_v<T>
T load_at(std::span<const std::byte> bytes, std::size_t offset) {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
    return value;
}

template <class T>
    requires std::is_trivially_copyable_v<T>
std::span<const std::byte> bytes_of(const T& value) {
    return std::as_bytes(std::span<const T, 1>(&value, 1));
}

} // namespace nestor::snapshot
