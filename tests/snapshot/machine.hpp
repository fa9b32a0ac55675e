// A made-up machine and a directory that goes away, for the tests of the store.
#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "snapshot/snapshot.hpp"

namespace nestor::snapshot::testing {

class TempDir final {
public:
    /// In memory where that is wanted and there is /dev/shm: syncing costs nothing there.
    explicit TempDir(bool in_memory = false);
    ~TempDir();
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    [[nodiscard]] std::string path() const { return path_; }
    [[nodiscard]] std::string operator/(const std::string& name) const {
        return path_ + "/" + name;
    }

private:
    std::string path_;
};

/// Units, one or two regions of memory and, where a test gives it some, boot images.
struct Machine {
    struct Memory {
        Gpa start;
        std::vector<u8> bytes;
    };
    struct Image {
        std::string name;
        std::string arguments;
        std::vector<u8> bytes;
        bool operator==(const Image&) const = default;
    };
    std::vector<Memory> memory;
    std::vector<Unit> units;
    std::vector<Image> images; ///< the kernel first
    Contract contract{0x77, {std::byte{1}, std::byte{2}, std::byte{3}}};

    /// `low` and `high` pages from address 0 and from 4 GiB on, all zero.
    static Machine blank(u64 low, u64 high = 0);

    [[nodiscard]] u8* page(std::size_t region, u64 index) {
        return memory[region].bytes.data() + index * page_size;
    }
    /// Compressible bytes that differ from page to page.
    void fill(std::size_t region, u64 index, u32 value);
    /// Bytes that do not compress.
    void fill_noise(std::size_t region, u64 index, std::mt19937_64& random);

    /// A kernel of `size` bytes, the first page of which all machines have in common, and a small
    /// module.
    void add_images(u32 value, u64 size = 3 * page_size + 100);

    [[nodiscard]] std::vector<Region> regions() const;
    [[nodiscard]] std::vector<RegionTarget> targets();
    /// A machine of the same shape with other contents and no images.
    [[nodiscard]] Machine garbled() const;
    /// Compares memory and images.
    [[nodiscard]] bool same_memory(const Machine& other) const;
    [[nodiscard]] Images boot_images() const;
    /// Those of the snapshot, read from its store.
    [[nodiscard]] Result<> take_images(const Snapshot& snapshot);
};

/// Saves and returns the result; the request can be changed by `adjust`.
Result<SaveReport> save(
    Store& store, const Machine& machine, const std::string& tag,
    const std::function<void(SaveRequest&)>& adjust = [](SaveRequest&) {});

Store make_store(const std::string& directory);

/// Loads and restores over garbage, images too; the error of whatever failed.
Result<Machine> restore(const std::string& directory, const std::string& tag, const Machine& shape);

std::vector<Unit> sorted_units(std::vector<Unit> units);

std::vector<char> file_bytes(const std::string& path);
void write_file(const std::string& path, const std::vector<char>& bytes);

/// Paths of all regular files below a directory, sorted.
std::vector<std::string> all_files(const std::string& directory);

} // namespace nestor::snapshot::testing
