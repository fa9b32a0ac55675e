// An export stream taken apart, to be changed and put together again with digests that fit.
#pragma once

#include <functional>
#include <vector>

#include <cstring>

#include "snapshot/pack_writer.hpp"
#include "snapshot/stream.hpp"

namespace nestor::snapshot::testing {

using Bytes = std::vector<char>;

/// A stream in parts, to be put together again with digests that fit.
struct StreamParts {
    Bytes heads;
    std::vector<Bytes> records;

    explicit StreamParts(const Bytes& stream) {
        std::size_t at = sizeof(StreamHeader);
        const auto header = load<StreamHeader>(stream, 0);
        for (u32 i = 0; i < header.snapshots; ++i) {
            const auto entry = load<StreamEntry>(stream, at);
            at += sizeof(entry) + entry.tag_size + entry.file_size;
        }
        heads.assign(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(at));
        at += sizeof(Digest);
        while (at + sizeof(StreamTrailer) < stream.size()) {
            const auto record = load<RecordHeader>(stream, at);
            const std::size_t size = record_head + record.items * item_size + record.stored_size;
            const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(at);
            records.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(size));
            at += size;
        }
    }

    template <class T>
    static T load(const Bytes& bytes, std::size_t at) {
        return load_at<T>(std::as_bytes(std::span(bytes)), at);
    }
    template <class T>
    static void append(Bytes& out, const T& value) {
        const auto* const first = reinterpret_cast<const char*>(&value);
        out.insert(out.end(), first, first + sizeof(T));
    }
    static Digest digest_of(const Bytes& bytes) { return sha256(std::as_bytes(std::span(bytes))); }

    /// Decoded, changed, and encoded again.
    void change(std::size_t record,
                const std::function<void(std::vector<Item>&, std::vector<std::byte>&)>& by) {
        RecordBuffer buffer;
        if (!buffer.parse(std::as_bytes(std::span(records[record])), true, true)) {
            return;
        }
        std::vector<Item> items = buffer.items();
        std::vector<std::byte> raw;
        for (u32 i = 0; i < items.size(); ++i) {
            raw.insert(raw.end(), buffer.item(i).begin(), buffer.item(i).end());
        }
        by(items, raw);
        RecordEncoder encoder;
        const auto made = encoder.encode(buffer.kind(), items, raw);
        const auto* const first = reinterpret_cast<const char*>(made->data());
        records[record].assign(first, first + made->size());
    }

    /// Makes the digests of heads and records fit their bytes again.
    void seal() {
        if (heads.size() >= sizeof(StreamHeader)) {
            auto header = load<StreamHeader>(heads, 0);
            header.digest = sha256(bytes_of(header).first(sizeof(header) - sizeof(Digest)));
            std::memcpy(heads.data(), &header, sizeof(header));
        }
        for (Bytes& record : records) {
            const auto bytes = std::as_bytes(std::span(record));
            Hasher hasher;
            hasher.add(bytes.first(sizeof(RecordHeader)));
            hasher.add(bytes.subspan(record_head));
            const Digest digest = hasher.finish();
            std::memcpy(record.data() + sizeof(RecordHeader), &digest, sizeof(digest));
        }
    }

    [[nodiscard]] Bytes joined() const {
        Bytes out = heads;
        const Digest seal = digest_of(heads);
        append(out, seal);
        for (const Bytes& record : records) {
            out.insert(out.end(), record.begin(), record.end());
        }
        StreamTrailer trailer{};
        std::memcpy(trailer.magic, stream_end_magic, sizeof(stream_end_magic));
        trailer.version = stream_version;
        trailer.records = records.size();
        trailer.bytes = out.size() + sizeof(trailer);
        trailer.digest = sha256(bytes_of(trailer).first(sizeof(trailer) - sizeof(Digest)));
        append(out, trailer);
        return out;
    }
};

} // namespace nestor::snapshot::testing
