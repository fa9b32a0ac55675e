// The files of a store and how they are replaced.
//
//   DIR/store            what this directory is (text, with its own digest)
//   DIR/writer.lock      flock of the one writer; its text says who that is
//   DIR/packs/*.pack     sealed packs (pack.hpp)
//   DIR/index.mdb        LMDB: which digest lies where; for writers only, can be rebuilt
//   DIR/manifests/HEX    one file per manifest, named by its digest
//   DIR/refs/TAG         one file per reference (text, with its own digest)
//   DIR/claims/HEX       who resumed the machine of that manifest (text, with its own digest)
//   DIR/orders/HEX       in which order a restore touched the pages; a hint
//   DIR/leases/*         what readers hold (lease.hpp)
//   DIR/deferred/TAG     references that are not known to be on disk (deferred.hpp)
//   DIR/unsynced         which packs are not known to be on disk, and since which start of the host
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/digest.hpp"
#include "src/base/fd.hpp"
#include "src/base/result.hpp"

namespace nestor::snapshot {

struct Layout {
    std::string root;

    [[nodiscard]] std::string store_file() const { return root + "/store"; }
    [[nodiscard]] std::string lock_file() const { return root + "/writer.lock"; }
    [[nodiscard]] std::string packs() const { return root + "/packs"; }
    [[nodiscard]] std::string index() const { return root + "/index.mdb"; }
    [[nodiscard]] std::string manifests() const { return root + "/manifests"; }
    [[nodiscard]] std::string refs() const { return root + "/refs"; }
    [[nodiscard]] std::string manifest(const Digest& digest) const {
        return manifests() + "/" + to_hex(digest);
    }
    [[nodiscard]] std::string ref(std::string_view tag) const {
        return refs() + "/" + std::string(tag);
    }
    [[nodiscard]] std::string claims() const { return root + "/claims"; }
    [[nodiscard]] std::string claim(const Digest& manifest) const {
        return claims() + "/" + to_hex(manifest);
    }
    [[nodiscard]] std::string orders() const { return root + "/orders"; }
    [[nodiscard]] std::string order(const Digest& manifest) const {
        return orders() + "/" + to_hex(manifest);
    }
    [[nodiscard]] std::string leases() const { return root + "/leases"; }
    [[nodiscard]] std::string deferred() const { return root + "/deferred"; }
    [[nodiscard]] std::string deferred(std::string_view tag) const {
        return deferred() + "/" + std::string(tag);
    }
    [[nodiscard]] std::string unsynced_file() const { return root + "/unsynced"; }
};

/// fdatasync, rename and fsync of a directory as Results that name the file.
[[nodiscard]] Result<> sync_file(int fd, const std::string& name);
[[nodiscard]] Result<> rename_file(const std::string& from, const std::string& to);
[[nodiscard]] Result<> sync_directory(const std::string& directory);

/// Whether what is written has to be on disk before the call returns.
enum class Sync : bool { no, yes };

/// Puts `bytes` under directory/name, durably and at once: a reader finds the old file or the new
/// one, whatever dies meanwhile. Without sync that holds for processes, not for a loss of power.
[[nodiscard]] Result<> replace_file(const std::string& directory, const std::string& name,
                                    std::span<const std::byte> bytes, Sync sync = Sync::yes);

/// Makes a directory where there is none.
[[nodiscard]] Result<> make_directory(const std::string& path);

/// Names in a directory, sorted, without those that begin with a dot.
[[nodiscard]] Result<std::vector<std::string>> list_directory(const std::string& directory);

/// Removes what a killed writer left: files ending in ".part" and dot files. Writer only.
void remove_leftovers(const Layout& layout);

/// The right to write to a store; ends with the object, or with the process.
class WriterLock final {
public:
    /// Waits for another writer up to `wait`, then fails with "held by pid N".
    [[nodiscard]] static Result<WriterLock> take(const Layout& layout,
                                                 std::chrono::milliseconds wait);

private:
    explicit WriterLock(Fd fd) : fd_(std::move(fd)) {}
    Fd fd_;
};

/// `body` and a last line with its digest.
[[nodiscard]] std::string seal_text(std::string body);
/// The body of a sealed text, or nothing where the digest does not fit.
[[nodiscard]] std::optional<std::string_view> open_text(std::string_view text);

/// Largest reference, claim or other text file that is read.
inline constexpr std::size_t max_text_file = 4096;

/// What a reference says.
struct Reference {
    std::string tag;
    Digest manifest;
};

[[nodiscard]] std::string encode_reference(const Reference& reference);
/// Exactly what encode_reference makes, for this tag; anything else is corrupt.
[[nodiscard]] Result<Reference> decode_reference(std::string_view text, std::string_view tag);
/// All tags, sorted, those of deferred saves too.
[[nodiscard]] Result<std::vector<std::string>> list_tags(const Layout& layout);
/// Whether a tag is there, damaged or not.
[[nodiscard]] bool tag_exists(const Layout& layout, std::string_view tag);
/// Reads a tag's file. Usage where `tag` is none, failed where there is none of that name.
[[nodiscard]] Result<Reference> read_reference(const Layout& layout, std::string_view tag);
/// Makes `tag` name the manifest: the commit point. Where it fails the reference is as it was, or
/// it is the new one although not known to be on disk. With Sync::no it is a deferred one.
[[nodiscard]] Result<> write_reference(const Layout& layout, const Reference& reference,
                                       Sync sync = Sync::yes);

/// What tells that nobody has written to a file.
struct FileState {
    u64 device = 0;
    u64 inode = 0;
    u64 size = 0;
    i64 modified_ns = 0;
    i64 changed_ns = 0;
    bool operator==(const FileState&) const = default;
};
/// Nothing where there is no file, or where it was changed so lately that another change could give
/// it the same times.
[[nodiscard]] std::optional<FileState> state_of_file(const std::string& path);

/// Makes the directories of a store that are not there: a copy may lack empty ones.
[[nodiscard]] Result<> make_directories(const Layout& layout);
/// Makes the directories and files of an empty store.
[[nodiscard]] Result<> make_store(const Layout& layout);
/// Compares the store file with what make_store writes.
[[nodiscard]] Result<> check_store_file(const Layout& layout);
[[nodiscard]] bool file_exists(const std::string& path);

} // namespace nestor::snapshot
