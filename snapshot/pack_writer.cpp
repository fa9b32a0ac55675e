// Writing packs. Owns: the open ".part" file, which gets its final name only when complete and on
// disk, so a pack under its name is always whole. Files that no reference will ever name (a failed
// save's) are removed by the destructor, those of a killed process by the next writer.
#include "snapshot/pack_writer.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include "src/base/check.hpp"

#include "snapshot/files.hpp"
#include "snapshot/format.hpp"

namespace nestor::snapshot {

std::string pack_file_name(u32 id) {
    char name[16];
    std::snprintf(name, sizeof(name), "%08x.pack", id);
    return name;
}

RecordEncoder::RecordEncoder() : context_(ZSTD_createCCtx()) { CHECK(context_ != nullptr); }
RecordEncoder::~RecordEncoder() { ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(context_)); }

Result<std::span<const std::byte>> RecordEncoder::encode(RecordKind kind,
                                                         std::span<const Item> items,
                                                         std::span<const std::byte> raw) {
    CHECK(!items.empty() && items.size() <= Location::max_slot + 1, {items.size()});
    CHECK(!raw.empty() && raw.size() <= max_raw_size, {raw.size()});
    const std::size_t payload = record_head + items.size() * item_size;
    out_.resize(payload + ZSTD_compressBound(raw.size()));
    std::size_t stored = ZSTD_compressCCtx(static_cast<ZSTD_CCtx*>(context_), out_.data() + payload,
                                           out_.size() - payload, raw.data(), raw.size(), 1);
    if (ZSTD_isError(stored) != 0) {
        return fail(ErrorCode::failed, std::string("compressing: ") + ZSTD_getErrorName(stored));
    }
    u32 encoding = encoding_zstd;
    if (stored >= raw.size()) {
        std::memcpy(out_.data() + payload, raw.data(), raw.size());
        stored = raw.size();
        encoding = encoding_plain;
    }
    out_.resize(payload + stored);
    const RecordHeader header{record_magic,
                              static_cast<u16>(kind),
                              static_cast<u16>(items.size()),
                              static_cast<u32>(raw.size()),
                              static_cast<u32>(stored),
                              encoding,
                              0};
    std::memcpy(out_.data(), &header, sizeof(header));
    std::byte* at = out_.data() + record_head;
    for (const Item& item : items) {
        std::memcpy(at, &item.digest, sizeof(Digest));
        std::memcpy(at + sizeof(Digest), &item.size, sizeof(u32));
        at += item_size;
    }
    Hasher hasher;
    hasher.add(bytes_of(header));
    hasher.add(std::span(out_).subspan(record_head));
    const Digest seal = hasher.finish();
    std::memcpy(out_.data() + sizeof(header), &seal, sizeof(seal));
    return std::span<const std::byte>(out_);
}

PackWriter::~PackWriter() {
    if (keep_) {
        return;
    }
    if (fd_.valid()) {
        ::unlink(path(id_, true).c_str());
    }
    for (const Sealed& pack : sealed_) {
        ::unlink(path(pack.id, false).c_str());
    }
}

std::string PackWriter::path(u32 id, bool partial) const {
    return directory_ + "/" + pack_file_name(id) + (partial ? ".part" : "");
}

Result<> PackWriter::start() {
    if (next_id_ > Location::max_pack) {
        return fail(ErrorCode::failed, "the store has no pack number left",
                    "export its snapshots into a new store");
    }
    id_ = next_id_;
    const std::string name = path(id_, true);
    fd_ = Fd(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!fd_.valid()) {
        return fail_errno("creating " + name, errno);
    }
    ++next_id_;
    offsets_.clear();
    PackHeader header{};
    std::memcpy(header.magic, pack_magic, sizeof(pack_magic));
    header.version = 1;
    header.id = id_;
    header.digest = sha256(bytes_of(header).first(32));
    TRY(write_all(fd_.get(), bytes_of(header)), name);
    offset_ = sizeof(header);
    return {};
}

Result<Location> PackWriter::append(std::span<const std::byte> record) {
    const std::scoped_lock lock(mutex_);
    if (failed_) {
        return fail(ErrorCode::failed, "an earlier write to the pack failed");
    }
    failed_ = true; // until this call has succeeded
    if (fd_.valid() && (offset_ >= limit_ || offsets_.size() > Location::max_record)) {
        TRY(seal_locked());
    }
    if (!fd_.valid()) {
        TRY(start());
    }
    TRY(write_all(fd_.get(), record), path(id_, true));
    const Location location(id_, static_cast<u32>(offsets_.size()), 0);
    offsets_.push_back(offset_);
    offset_ += record.size();
    total_ += record.size();
    failed_ = false;
    return location;
}

Result<> PackWriter::seal_locked() {
    PackTrailer trailer{};
    std::memcpy(trailer.magic, pack_end_magic, sizeof(pack_end_magic));
    trailer.version = 1;
    trailer.records = static_cast<u32>(offsets_.size());
    trailer.directory = offset_;
    const auto directory = std::as_bytes(std::span(offsets_));
    trailer.file_size = offset_ + directory.size() + sizeof(trailer);
    Hasher hasher;
    hasher.add(directory);
    hasher.add(bytes_of(trailer).first(32));
    trailer.digest = hasher.finish();
    const std::string name = path(id_, true);
    TRY(write_all(fd_.get(), directory), name);
    TRY(write_all(fd_.get(), bytes_of(trailer)), name);
    total_ += sizeof(PackHeader) + directory.size() + sizeof(trailer);
    TRY(sync_file(fd_.get(), name));
    TRY(rename_file(name, path(id_, false)));
    sealed_.push_back({id_, trailer.records});
    fd_.reset();
    return {};
}

Result<> PackWriter::seal() {
    const std::scoped_lock lock(mutex_);
    if (failed_) {
        return fail(ErrorCode::failed, "an earlier write to the pack failed");
    }
    if (fd_.valid()) {
        TRY(seal_locked());
    }
    return sync_directory(directory_);
}

} // namespace nestor::snapshot
