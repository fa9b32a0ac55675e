// Writing records into packs. Owns: when a pack is full, and that the packs of a failed save go
// again; those of a killed process are whole and are used by the next save or collected.
#include "snapshot/pack_writer.hpp"

#include <cstring>

#include <unistd.h>
#include <zstd.h>

#include "src/base/check.hpp"

#include "snapshot/format.hpp"

namespace nestor::snapshot {

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
    const Digest seal = record_seal(out_);
    std::memcpy(out_.data() + sizeof(header), &seal, sizeof(seal));
    return std::span<const std::byte>(out_);
}

PackWriter::~PackWriter() {
    if (!keep_) {
        for (const u32 id : sealed_) {
            ::unlink((directory_ + "/" + pack_file_name(id)).c_str());
        }
    }
}

Result<> PackWriter::start() {
    if (next_id_ > Location::max_pack) {
        return fail(ErrorCode::failed, "the store has no pack number left",
                    "export its snapshots into a new store");
    }
    file_.emplace(TRY(PackFile::create(directory_, next_id_, sync_)));
    ++next_id_;
    return {};
}

Result<Location> PackWriter::append(std::span<const std::byte> record) {
    const std::scoped_lock lock(mutex_);
    if (error_) {
        return Failure(*error_); // of whichever thread was first, so that the cause is told
    }
    auto location = append_locked(record);
    if (!location) {
        error_ = location.error();
    }
    return location;
}

Result<Location> PackWriter::append_locked(std::span<const std::byte> record) {
    if (file_ && (file_->size() >= limit_ || file_->records() > Location::max_record)) {
        TRY(seal_locked());
    }
    if (!file_) {
        TRY(start());
    }
    const Location location(file_->id(), file_->records(), 0);
    TRY(file_->append(record));
    return location;
}

Result<> PackWriter::seal_locked() {
    TRY(file_->finish());
    sealed_.push_back(file_->id());
    total_ += file_->size();
    file_.reset();
    return {};
}

Result<> PackWriter::seal() {
    const std::scoped_lock lock(mutex_);
    if (error_) {
        return Failure(*error_);
    }
    if (file_) {
        TRY(seal_locked());
    }
    return sync_ == Sync::yes ? sync_directory(directory_) : Result<>{};
}

} // namespace nestor::snapshot
