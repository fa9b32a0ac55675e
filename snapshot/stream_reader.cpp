// The reader of export streams. Owns that a cut, damaged or lying stream ends in an error and never
// in a wrong byte: every part has a digest, and the trailer says how long the whole is.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/stream_reader.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t piece = 1u << 20;
constexpr std::size_t longest_tag = 100;

Failure corrupt(std::string what) {
    return fail(ErrorCode::corrupt, "export stream: " + std::move(what),
                "export it again; a copy may have been cut short");
}

} // namespace

StreamReader::StreamReader(int fd, const Progress& progress) : fd_(fd), progress_(progress) {
    struct stat info{};
    if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
        total_ = static_cast<u64>(info.st_size);
    }
}

Result<> StreamReader::read(std::span<std::byte> into) {
    while (!into.empty()) {
        const ssize_t n = ::read(fd_, into.data(), std::min(into.size(), piece));
        if (n == 0) {
            return corrupt("it ends early");
        }
        if (n < 0 && errno != EINTR) {
            return fail_errno("reading the export stream", errno);
        }
        const auto got = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
        into = into.subspan(got);
        bytes_ += got;
        if (progress_ && !progress_(bytes_, total_)) {
            return fail(ErrorCode::failed, "interrupted");
        }
    }
    return {};
}

/// Grows `into` as bytes come: what a stream announces is reserved only when it is there.
Result<> StreamReader::append(std::vector<std::byte>& into, std::size_t size) {
    while (size != 0) {
        const std::size_t part = std::min(size, piece);
        const std::size_t at = into.size();
        into.resize(at + part);
        TRY(read(std::span(into).subspan(at)));
        size -= part;
    }
    return {};
}

Result<std::vector<StreamReader::Head>> StreamReader::heads() {
    std::vector<std::byte> bytes;
    TRY(append(bytes, sizeof(StreamHeader)));
    const auto header = load_at<StreamHeader>(bytes, 0);
    if (std::memcmp(header.magic, stream_magic, sizeof(stream_magic)) != 0 ||
        header.digest != sha256(std::span(bytes).first(sizeof(header) - sizeof(Digest)))) {
        return corrupt("this is none");
    }
    if (header.version != stream_version) {
        return fail(ErrorCode::incompatible,
                    "export stream: version " + std::to_string(header.version) +
                        "; this program knows version " + std::to_string(stream_version),
                    "use a newer vm");
    }
    if (header.snapshots == 0 || header.snapshots > max_stream_snapshots) {
        return corrupt("it says that it holds " + std::to_string(header.snapshots) + " snapshots");
    }
    struct Place {
        StreamEntry entry;
        std::size_t tag = 0; ///< where it begins; the file follows
    };
    std::vector<Place> places;
    for (u32 i = 0; i < header.snapshots; ++i) {
        const std::size_t at = bytes.size();
        TRY(append(bytes, sizeof(StreamEntry)));
        const auto entry = load_at<StreamEntry>(bytes, at);
        if (entry.tag_size > longest_tag || entry.file_size > max_manifest_file) {
            return corrupt("a tag or manifest has an impossible size");
        }
        places.push_back({entry, bytes.size()});
        TRY(append(bytes, std::size_t{entry.tag_size} + entry.file_size));
    }
    const Digest digest = sha256(bytes);
    TRY(append(bytes, sizeof(Digest)));
    if (load_at<Digest>(bytes, bytes.size() - sizeof(Digest)) != digest) {
        return corrupt("its manifests are damaged");
    }
    std::vector<Head> heads;
    for (const Place& place : places) {
        const auto* const tag = reinterpret_cast<const char*>(bytes.data() + place.tag);
        const auto file =
            std::span(bytes).subspan(place.tag + place.entry.tag_size, place.entry.file_size);
        heads.push_back({std::string(tag, place.entry.tag_size),
                         TRY(decode_manifest(file, place.entry.manifest), "export stream")});
    }
    return heads;
}

Result<> StreamReader::check_trailer() {
    constexpr std::size_t had = sizeof(RecordHeader);
    bytes_of_record_.resize(sizeof(StreamTrailer));
    TRY(read(std::span(bytes_of_record_).subspan(had)));
    const auto trailer = load_at<StreamTrailer>(bytes_of_record_, 0);
    if (trailer.digest !=
            sha256(std::span(bytes_of_record_).first(sizeof(trailer) - sizeof(Digest))) ||
        trailer.version != stream_version || trailer.zero != 0) {
        return corrupt("its end is damaged");
    }
    if (trailer.records != records_ || trailer.bytes != bytes_) {
        return corrupt("parts of it are missing");
    }
    std::byte more;
    ssize_t n = 0;
    do {
        n = ::read(fd_, &more, 1);
    } while (n < 0 && errno == EINTR);
    return n <= 0 ? Result<>{} : Result<>(corrupt("there is something behind its end"));
}

Result<const RecordBuffer*> StreamReader::next() {
    bytes_of_record_.resize(sizeof(RecordHeader));
    TRY(read(bytes_of_record_));
    if (std::memcmp(bytes_of_record_.data(), stream_end_magic, sizeof(stream_end_magic)) == 0) {
        TRY(check_trailer());
        return nullptr;
    }
    const auto header = load_at<RecordHeader>(bytes_of_record_, 0);
    // Nothing compresses to more than it was: the writer then stores it plainly.
    if (header.magic != record_magic || header.raw_size > max_raw_size ||
        header.stored_size > header.raw_size) {
        return corrupt("a record's header is damaged");
    }
    TRY(append(bytes_of_record_, sizeof(Digest) + header.items * item_size + header.stored_size));
    TRY(record_.parse(bytes_of_record_, true, true), "export stream");
    ++records_;
    for (u32 i = 0; i < record_.count() && record_.kind() != RecordKind::nodes; ++i) {
        if (sha256(record_.item(i)) != record_.items()[i].digest) {
            return corrupt("an item does not have its digest");
        }
    }
    return &record_;
}

} // namespace nestor::snapshot
