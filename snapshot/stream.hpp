// The single-file form of snapshots, for export and import. Internal to snapshot.
//
//   header    64 bytes: "nestexpo", u32 version, u32 snapshots, 16 zero bytes, SHA-256 of these 32
//   snapshot  per snapshot: digest of the manifest, u32 length of the tag, u32 length of the file,
//             tag, manifest file with an empty placement (manifest.hpp)
//   digest    SHA-256 of all before
//   record    any number, as in packs (pack.hpp): first pages, then map nodes level by level with
//             locations of zero, then units; each item once
//   trailer   64 bytes: "nestexpe", u32 version, u32 zero, u64 records, u64 bytes of the whole
//             stream, SHA-256 of these 32
//
// It is read from front to end: what an item refers to lies before it.
#pragma once

#include "snapshot/format.hpp"
#include "snapshot/pack.hpp"

namespace nestor::snapshot {

inline constexpr u32 stream_version = 1;

struct StreamHeader {
    char magic[8];
    u32 version;
    u32 snapshots;
    u8 zero[16];
    Digest digest;
};
static_assert(sizeof(StreamHeader) == 64);
inline constexpr char stream_magic[8] = {'n', 'e', 's', 't', 'e', 'x', 'p', 'o'};

struct StreamEntry {
    Digest manifest;
    u32 tag_size;
    u32 file_size;
};
static_assert(sizeof(StreamEntry) == 40);

struct StreamTrailer {
    char magic[8];
    u32 version;
    u32 zero;
    u64 records;
    u64 bytes;
    Digest digest;
};
static_assert(sizeof(StreamTrailer) == 64);
inline constexpr char stream_end_magic[8] = {'n', 'e', 's', 't', 'e', 'x', 'p', 'e'};

/// Snapshots in one stream, at most.
inline constexpr u32 max_stream_snapshots = 1u << 16;

} // namespace nestor::snapshot
