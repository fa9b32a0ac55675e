// What a machine is booted from again when it is reset: a kernel and its modules, as content of a
// store. Part of the facade snapshot.hpp.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "snapshot/types.hpp"

namespace nestor::snapshot {

struct SnapshotData; // internal

/// The bytes of an image: fixed, in pages, the last of which is padded with zeros.
class ImageBytes final {
public:
    /// All zero, which costs no memory before it is written to. Errors: failed (no memory).
    [[nodiscard]] static Result<std::shared_ptr<ImageBytes>> make(u64 size);
    /// Reads a whole regular file of at most `limit` bytes.
    [[nodiscard]] static Result<std::shared_ptr<const ImageBytes>> read(const std::string& path,
                                                                        u64 limit);
    ~ImageBytes();
    ImageBytes(const ImageBytes&) = delete;
    ImageBytes& operator=(const ImageBytes&) = delete;

    [[nodiscard]] u64 size() const { return size_; }
    [[nodiscard]] u8* data() { return data_; }
    [[nodiscard]] std::span<const u8> bytes() const { return {data_, size_}; }

private:
    ImageBytes(u8* data, u64 size) : data_(data), size_(size) {}
    u8* data_; ///< nullptr where size_ is 0
    u64 size_;
};

/// The images of one machine and what is known about them: their digests, and where they lie in the
/// store that the machine was last saved to or restored from. Saving them there again costs
/// nothing. Not thread-safe.
class Images final {
public:
    struct File {
        ImageKind kind = ImageKind::kernel;
        std::string name;
        bool named = false;
        std::string arguments;
        std::shared_ptr<const ImageBytes> bytes;
    };

    Images(); ///< none
    /// The kernel and then its modules. Errors: usage (another order, too many, too large).
    [[nodiscard]] static Result<Images> of(std::vector<File> files);
    ~Images();
    Images(Images&&) noexcept;
    Images& operator=(Images&&) noexcept;

    [[nodiscard]] bool empty() const;
    /// With their digests, which the first call makes out of the bytes.
    [[nodiscard]] Result<std::vector<ImageEntry>> entries();
    /// With their bytes, which are read from the store where they are not there yet, compared with
    /// their digests, and kept. Errors name snapshot, image and page.
    [[nodiscard]] Result<std::vector<File>> load();

    struct Impl;
    [[nodiscard]] Impl& impl() { return *impl_; } ///< for snapshot/*.cpp only

private:
    friend class Snapshot;
    std::unique_ptr<Impl> impl_;
};

} // namespace nestor::snapshot
