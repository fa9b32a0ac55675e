// The bytes of one pack in the order they are written. Owns: that a pack under its name is whole,
// and (with sync) on disk before it has it.
#include "snapshot/pack_file.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "snapshot/format.hpp"

namespace nestor::snapshot {

namespace {

constexpr u64 flush_step = u64{8} << 20;

std::string partial(const std::string& path) { return path + ".part"; }

} // namespace

std::string pack_file_name(u32 id) {
    char name[16];
    std::snprintf(name, sizeof(name), "%08x.pack", id);
    return name;
}

Result<PackFile> PackFile::create(const std::string& directory, u32 id, Sync sync) {
    const std::string path = directory + "/" + pack_file_name(id);
    Fd fd(::open(partial(path).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!fd.valid()) {
        return fail_errno("creating " + partial(path), errno);
    }
    PackFile file(std::move(fd), path, id, sync);
    PackHeader header{};
    std::memcpy(header.magic, pack_magic, sizeof(pack_magic));
    header.version = 1;
    header.id = id;
    header.digest = sha256(bytes_of(header).first(32));
    TRY(write_all(file.fd_.get(), bytes_of(header)), partial(path));
    file.offset_ = sizeof(header);
    return file;
}

PackFile::~PackFile() {
    if (fd_.valid()) {
        ::unlink(partial(path_).c_str());
    }
}

Result<> PackFile::append(std::span<const std::byte> record) {
    TRY(write_all(fd_.get(), record), partial(path_));
    offsets_.push_back(offset_);
    offset_ += record.size();
    if (sync_ == Sync::yes && offset_ - on_its_way_ >= flush_step) {
        // The disk works while the rest is compressed. Whether it does is of no interest here: what
        // counts is the sync at the end.
        const u64 whole_pages = offset_ & ~page_mask;
        (void)::sync_file_range(fd_.get(), static_cast<off_t>(on_its_way_),
                                static_cast<off_t>(whole_pages - on_its_way_),
                                SYNC_FILE_RANGE_WRITE);
        on_its_way_ = whole_pages;
    }
    return {};
}

Result<> PackFile::finish() {
    PackTrailer trailer{};
    std::memcpy(trailer.magic, pack_end_magic, sizeof(pack_end_magic));
    trailer.version = 1;
    trailer.records = records();
    trailer.directory = offset_;
    const auto directory = std::as_bytes(std::span(offsets_));
    trailer.file_size = offset_ + directory.size() + sizeof(trailer);
    Hasher hasher;
    hasher.add(directory);
    hasher.add(bytes_of(trailer).first(32));
    trailer.digest = hasher.finish();
    const std::string name = partial(path_);
    TRY(write_all(fd_.get(), directory), name);
    TRY(write_all(fd_.get(), bytes_of(trailer)), name);
    if (sync_ == Sync::yes) {
        TRY(sync_file(fd_.get(), name));
    }
    TRY(rename_file(name, path_));
    offset_ = trailer.file_size;
    fd_.reset();
    return {};
}

} // namespace nestor::snapshot
