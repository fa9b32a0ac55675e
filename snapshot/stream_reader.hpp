// Reading an export stream piece by piece. Internal to snapshot.
#pragma once

#include <string>
#include <vector>

#include "snapshot/manifest.hpp"
#include "snapshot/snapshot.hpp"
#include "snapshot/stream.hpp"

namespace nestor::snapshot {

/// Takes a stream apart, for hostile bytes: sizes are bounded before anything is reserved for them,
/// and what is handed out has the digests it claims.
class StreamReader final {
public:
    /// `progress` is told what was read; the total is the file's size, 0 where it has none.
    StreamReader(int fd, const Progress& progress);

    struct Head {
        std::string tag;
        PlacedManifest placed; ///< with an empty placement
    };
    [[nodiscard]] Result<std::vector<Head>> heads();

    /// The next record, decoded, its pages and units compared with their digests; null at the end
    /// of a stream that is whole and ends there. Valid until the next call.
    [[nodiscard]] Result<const RecordBuffer*> next();

    [[nodiscard]] u64 bytes_read() const { return bytes_; }

private:
    [[nodiscard]] Result<> read(std::span<std::byte> into);
    [[nodiscard]] Result<> append(std::vector<std::byte>& into, std::size_t size);
    [[nodiscard]] Result<> check_trailer();

    int fd_;
    const Progress& progress_;
    u64 total_ = 0;
    u64 bytes_ = 0;
    u64 records_ = 0;
    std::vector<std::byte> bytes_of_record_;
    RecordBuffer record_;
};

} // namespace nestor::snapshot
