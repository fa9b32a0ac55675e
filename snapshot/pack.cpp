// Reading packs. Owns: the checks between a file that anyone may have changed and the rest of the
// program. Every length is compared with what is there before it is used, nothing is trusted
// because it was written by us, and whatever disagrees is ErrorCode::corrupt. What it does not
// check is whether an item is the right one: the caller compares digests.
//
// pread and no mapping: a file that gets shorter or a failing disk is an error, not a signal.
#include "snapshot/pack.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "src/base/check.hpp"
#include "src/base/digest_pages.hpp"

#include "snapshot/files.hpp"
#include "snapshot/format.hpp"
#include "snapshot/pack_file.hpp"

namespace nestor::snapshot {

namespace {

/// Files kept open at once: a long chain of small saves has more packs than a process may open.
constexpr std::size_t max_open = 256;

Failure corrupt_pack(std::string what) {
    return fail(ErrorCode::corrupt, std::move(what), damage_remedy);
}

Result<> read_at(int fd, std::span<std::byte> into, u64 offset, const std::string& path) {
    while (!into.empty()) {
        const ssize_t n = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno("reading " + path, errno);
        }
        if (n == 0) {
            return corrupt_pack(path + ": the file is cut short");
        }
        into = into.subspan(static_cast<std::size_t>(n));
        offset += static_cast<u64>(n);
    }
    return {};
}

} // namespace

std::string to_string(Location location) {
    return "pack " + std::to_string(location.pack()) + " record " +
           std::to_string(location.record()) + " item " + std::to_string(location.slot());
}

Digest record_seal(std::span<const std::byte> record) {
    const auto rest = record.subspan(record_head);
    const std::size_t half = rest.size() / 128 * 64;
    const std::array<const std::byte*, 2> runs{rest.data(), rest.data() + half};
    std::array<Digest, 2> halves;
    sha256_each(runs, half, halves);
    Hasher hasher;
    hasher.add(record.first(sizeof(RecordHeader)));
    hasher.add(bytes_of(halves));
    hasher.add(rest.subspan(2 * half));
    return hasher.finish();
}

std::vector<u32> shares_of_items(std::span<const Item> items, u64 bytes) {
    u64 all = 0;
    for (const Item& item : items) {
        all += item.size;
    }
    std::vector<u32> shares;
    shares.reserve(items.size());
    u64 before = 0;
    for (const Item& item : items) {
        // Differences of a running sum, so that the shares add up.
        const u64 after = before + item.size;
        const u64 share =
            item.size == 0 ? 0 : std::max<u64>(bytes * after / all - bytes * before / all, 1);
        shares.push_back(static_cast<u32>(share));
        before = after;
    }
    return shares;
}

RecordBuffer::RecordBuffer() : context_(ZSTD_createDCtx()) { CHECK(context_ != nullptr); }
RecordBuffer::~RecordBuffer() { ZSTD_freeDCtx(static_cast<ZSTD_DCtx*>(context_)); }

std::span<const std::byte> RecordBuffer::item(u32 slot) const {
    if (slot >= items_.size() || raw_.empty()) {
        return {};
    }
    return std::span(raw_).subspan(offsets_[slot], items_[slot].size);
}

Result<> RecordBuffer::parse(std::span<const std::byte> record, bool payload, bool seal) {
    items_.clear();
    offsets_.clear();
    raw_.clear();
    if (record.size() < record_head) {
        return corrupt_pack("a record is cut short");
    }
    const auto header = load_at<RecordHeader>(record, 0);
    const std::size_t list = std::size_t{header.items} * item_size;
    const bool sane = header.magic == record_magic && header.zero == 0 && header.kind >= 1 &&
                      header.kind <= 3 && header.items >= 1 &&
                      header.items <= Location::max_slot + 1 && header.raw_size >= 1 &&
                      header.raw_size <= max_raw_size && header.encoding <= encoding_zstd &&
                      record.size() >= record_head + list;
    if (!sane) {
        return corrupt_pack("a record's header is damaged");
    }
    const auto stored = record.subspan(record_head + list);
    const bool whole = stored.size() == header.stored_size;
    if ((payload || seal) && !whole) {
        return corrupt_pack("a record's payload has another length than its header says");
    }
    if (seal) {
        if (record_seal(record) != load_at<Digest>(record, sizeof(RecordHeader))) {
            return corrupt_pack("a record does not have the digest it was written with");
        }
    }
    kind_ = static_cast<RecordKind>(header.kind);
    u64 total = 0;
    for (u32 i = 0; i < header.items; ++i) {
        const std::size_t at = record_head + i * item_size;
        const Item item{load_at<Digest>(record, at), load_at<u32>(record, at + sizeof(Digest))};
        const bool odd_page = kind_ == RecordKind::pages && item.size != page_size;
        if (item.size == 0 ? item.digest != Digest{} : item.size > header.raw_size || odd_page) {
            return corrupt_pack("an item of a record has an impossible size");
        }
        offsets_.push_back(static_cast<u32>(total));
        items_.push_back(item);
        total += item.size;
        if (total > header.raw_size) {
            return corrupt_pack("a record's items are longer than its payload");
        }
    }
    if (total != header.raw_size) {
        return corrupt_pack("a record's items are shorter than its payload");
    }
    return payload ? decode(stored, header.encoding, header.raw_size) : Result<>{};
}

Result<> RecordBuffer::decode(std::span<const std::byte> stored, u32 encoding, u32 raw_size) {
    if (encoding == encoding_plain) {
        if (stored.size() != raw_size) {
            return corrupt_pack("a plain record has another length than its header says");
        }
        raw_.assign(stored.begin(), stored.end());
        return {};
    }
    // The frame says its size too; a lying header must not make us reserve more than that.
    if (ZSTD_getFrameContentSize(stored.data(), stored.size()) != raw_size) {
        return corrupt_pack("a compressed record has another length than its header says");
    }
    raw_.resize(raw_size);
    const std::size_t n = ZSTD_decompressDCtx(static_cast<ZSTD_DCtx*>(context_), raw_.data(),
                                              raw_.size(), stored.data(), stored.size());
    if (ZSTD_isError(n) != 0 || n != raw_size) {
        raw_.clear();
        return corrupt_pack("a record cannot be decompressed");
    }
    return {};
}

Result<std::unique_ptr<const Pack>> Pack::open(const std::string& path, u32 id) {
    std::unique_ptr<Pack> pack(new Pack);
    pack->path_ = path;
    pack->fd_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!pack->fd_.valid()) {
        if (errno == ENOENT) {
            return corrupt_pack(path + ": this pack is missing");
        }
        return fail_errno("opening " + path, errno);
    }
    struct stat info{};
    if (::fstat(pack->fd_.get(), &info) != 0) {
        return fail_errno("reading the size of " + path, errno);
    }
    pack->file_size_ = static_cast<u64>(info.st_size);
    TRY(pack->load_directory(id));
    return std::unique_ptr<const Pack>(std::move(pack));
}

bool Pack::is_file(const std::string& path) const {
    struct stat mine{};
    struct stat named{};
    return ::fstat(fd_.get(), &mine) == 0 && ::stat(path.c_str(), &named) == 0 &&
           mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
}

Result<> Pack::load_directory(u32 id) {
    if (file_size_ < sizeof(PackHeader) + sizeof(PackTrailer)) {
        return corrupt_pack(path_ + ": the file is cut short");
    }
    PackHeader header;
    TRY(read_at(fd_.get(), std::as_writable_bytes(std::span(&header, 1)), 0, path_));
    if (std::memcmp(header.magic, pack_magic, sizeof(pack_magic)) != 0 || header.id != id ||
        sha256(bytes_of(header).first(32)) != header.digest) {
        return corrupt_pack(path_ + ": the header is damaged");
    }
    if (header.version != 1) {
        return fail(ErrorCode::incompatible,
                    path_ + ": format " + std::to_string(header.version) +
                        ", written by a newer version; this one knows format 1",
                    "use a newer vm");
    }
    PackTrailer trailer;
    TRY(read_at(fd_.get(), std::as_writable_bytes(std::span(&trailer, 1)),
                file_size_ - sizeof(PackTrailer), path_));
    const u64 end = file_size_ - sizeof(PackTrailer);
    if (std::memcmp(trailer.magic, pack_end_magic, sizeof(pack_end_magic)) != 0 ||
        trailer.file_size != file_size_ || trailer.directory > end ||
        trailer.directory < sizeof(PackHeader) || trailer.records > Location::max_record + 1 ||
        end - trailer.directory != u64{trailer.records} * sizeof(u64)) {
        return corrupt_pack(path_ + ": the end is missing or damaged");
    }
    directory_ = trailer.directory;
    offsets_.resize(trailer.records);
    const auto bytes = std::as_writable_bytes(std::span(offsets_));
    TRY(read_at(fd_.get(), bytes, directory_, path_));
    Hasher hasher;
    hasher.add(bytes);
    hasher.add(bytes_of(trailer).first(32));
    if (hasher.finish() != trailer.digest) {
        return corrupt_pack(path_ + ": the directory is damaged");
    }
    // Records fill the file from the header to the directory, so every byte belongs to something.
    u64 floor = sizeof(PackHeader);
    if ((offsets_.empty() ? directory_ : offsets_[0]) != floor) {
        return corrupt_pack(path_ + ": the directory is out of order");
    }
    for (u32 record = 0; record < records(); ++record) {
        const u64 next = record + 1 < offsets_.size() ? offsets_[record + 1] : directory_;
        floor = offsets_[record];
        if (next < floor || next > directory_ || (next != floor && next - floor < record_head)) {
            return corrupt_pack(path_ + ": the directory is out of order");
        }
    }
    return {};
}

u64 Pack::record_size(u32 record) const {
    if (record >= offsets_.size()) {
        return 0;
    }
    return (record + 1 < offsets_.size() ? offsets_[record + 1] : directory_) - offsets_[record];
}

Result<std::vector<std::byte>> Pack::raw_record(u32 record) const {
    RecordBuffer buffer;
    TRY(read_bytes(record, ~u64{0}, buffer));
    return std::move(buffer.stored_);
}

Result<> Pack::read_bytes(u32 record, u64 limit, RecordBuffer& into) const {
    const u64 whole = record_size(record);
    if (whole == 0) {
        return corrupt_pack(path_ + ": there is no record " + std::to_string(record));
    }
    const u64 size = std::min(whole, limit);
    if (size > u64{max_raw_size} + (1u << 20)) {
        return corrupt_pack(path_ + ": record " + std::to_string(record) + " is impossibly long");
    }
    into.stored_.resize(size);
    return read_at(fd_.get(), into.stored_, offsets_[record], path_);
}

Result<> Pack::read(u32 record, RecordBuffer& into) const {
    TRY(read_bytes(record, ~u64{0}, into));
    TRY(into.parse(into.stored_, true, false), path_ + ": record " + std::to_string(record));
    return {};
}

Result<> Pack::read_items(u32 record, RecordBuffer& into) const {
    // One read fetches the item list of a page extent; a longer list takes another.
    TRY(read_bytes(record, record_head + 64 * item_size, into));
    const auto header = load_at<RecordHeader>(into.stored_, 0);
    if (header.items > 64) {
        TRY(read_bytes(record, record_head + header.items * item_size, into));
    }
    TRY(into.parse(into.stored_, false, false), path_ + ": record " + std::to_string(record));
    return {};
}

Result<> Pack::read_sealed(u32 record, RecordBuffer& into) const {
    TRY(read_bytes(record, ~u64{0}, into));
    TRY(into.parse(into.stored_, true, true), path_ + ": record " + std::to_string(record));
    return {};
}

std::string Packs::path(u32 id) const { return directory_ + "/" + pack_file_name(id); }

Result<std::shared_ptr<const Pack>> Packs::get(u32 id) const {
    const std::scoped_lock lock(mutex_);
    const auto found = open_.find(id);
    if (found != open_.end()) {
        // gc may have put another file in its place; of one that is gone the open one still does.
        if (found->second.pack->is_file(path(id)) || !file_exists(path(id))) {
            found->second.used = ++clock_;
            return found->second.pack;
        }
        open_.erase(found);
    }
    std::shared_ptr<const Pack> pack = TRY(Pack::open(path(id), id));
    if (open_.size() >= max_open) {
        open_.erase(std::min_element(open_.begin(), open_.end(), [](const auto& a, const auto& b) {
            return a.second.used < b.second.used;
        }));
    }
    open_.emplace(id, Slot{pack, ++clock_});
    return pack;
}

void Packs::refresh() const {
    const std::scoped_lock lock(mutex_);
    std::erase_if(open_, [this](const auto& entry) {
        return !entry.second.pack->is_file(path(entry.first));
    });
}

Result<> Packs::read(Location location, RecordKind kind, RecordBuffer& into) const {
    const std::shared_ptr<const Pack> pack = TRY(get(location.pack()));
    TRY(pack->read(location.record(), into));
    if (into.kind() != kind || location.slot() >= into.count()) {
        return corrupt_pack(to_string(location) + " is not what it is referred to as");
    }
    return {};
}

Result<std::vector<u32>> Packs::ids() const {
    DIR* const dir = ::opendir(directory_.c_str());
    if (dir == nullptr) {
        return fail_errno("reading the directory " + directory_, errno);
    }
    std::vector<u32> ids;
    while (const dirent* const entry = ::readdir(dir)) {
        unsigned id = 0;
        if (std::sscanf(entry->d_name, "%8x", &id) == 1 && id <= Location::max_pack &&
            pack_file_name(id) == entry->d_name) {
            ids.push_back(id);
        }
    }
    ::closedir(dir);
    std::sort(ids.begin(), ids.end());
    return ids;
}

} // namespace nestor::snapshot
