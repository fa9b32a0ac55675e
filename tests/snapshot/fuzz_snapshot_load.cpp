// Feeds hostile bytes to everything that reads the files of a store. The first byte says to what;
// where a digest would stop every mutation at the door, it is put right first.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "snapshot/files.hpp"
#include "snapshot/format.hpp"
#include "snapshot/lmdb_check.hpp"
#include "snapshot/manifest.hpp"
#include "snapshot/memory_map.hpp"
#include "snapshot/pack.hpp"
#include "snapshot/touch_order.hpp"

namespace {

using namespace nestor;
using namespace nestor::snapshot;
using Bytes = std::span<const std::byte>;

void put_digest(std::vector<std::byte>& file, std::size_t at, const Digest& digest) {
    if (at + sizeof(digest) <= file.size()) {
        std::memcpy(file.data() + at, &digest, sizeof(digest));
    }
}

void fuzz_manifest(Bytes input, bool right_digests) {
    std::vector<std::byte> file(input.begin(), input.end());
    Digest expected{};
    if (right_digests && file.size() >= 24 + sizeof(Digest)) {
        const std::size_t body = file.size() - sizeof(Digest);
        const u64 words = load_at<u32>(file, 12);
        if (24 + words * 8 <= body) {
            expected = sha256(Bytes(file).subspan(24, words * 8));
        }
        put_digest(file, body, sha256(Bytes(file).first(body)));
    }
    auto placed = decode_manifest(file, expected);
    if (!placed) {
        return;
    }
    // What was accepted is accepted again when it was written by us.
    const auto again = encode_manifest(*placed);
    if (!decode_manifest(again, placed->manifest.digest)) {
        std::abort();
    }
}

void fuzz_record(Bytes input) {
    RecordBuffer buffer;
    for (const bool payload : {false, true}) {
        if (buffer.parse(input, payload, false)) {
            std::size_t total = 0;
            for (u32 slot = 0; slot <= buffer.count(); ++slot) {
                for (const std::byte b : buffer.item(slot)) {
                    total += static_cast<std::size_t>(b);
                }
            }
            if (total == ~std::size_t{0}) {
                std::abort();
            }
        }
    }
    (void)buffer.parse(input, true, true);
}

/// A pack whose header, directory and trailer have right digests, whatever they say.
void fuzz_pack(Bytes input) {
    std::vector<std::byte> file(input.begin(), input.end());
    if (file.size() >= 128) {
        put_digest(file, 32, sha256(Bytes(file).first(32)));
        const std::size_t trailer = file.size() - 64;
        const u64 size = file.size();
        std::memcpy(file.data() + trailer + 24, &size, sizeof(size));
        const u64 directory = load_at<u64>(file, trailer + 16);
        if (directory <= trailer) {
            Hasher hasher;
            hasher.add(Bytes(file).subspan(directory, trailer - directory));
            hasher.add(Bytes(file).subspan(trailer, 32));
            put_digest(file, trailer + 32, hasher.finish());
        }
    }
    const Fd fd(::memfd_create("pack", MFD_CLOEXEC));
    if (!fd.valid() || !write_all(fd.get(), file)) {
        return;
    }
    const auto pack = Pack::open("/proc/self/fd/" + std::to_string(fd.get()), 1);
    if (!pack) {
        return;
    }
    RecordBuffer buffer;
    for (u32 record = 0; record < (*pack)->records() && record < 64; ++record) {
        (void)(*pack)->read_items(record, buffer);
        (void)(*pack)->read(record, buffer);
        (void)(*pack)->read_sealed(record, buffer);
    }
}

void fuzz_node(Bytes input) {
    MapNode node;
    for (const unsigned level : {1u, 2u, 7u}) {
        (void)decode_node(input, Digest{}, level, 64, node);
        (void)decode_node(input, Digest{}, level, 3, node);
    }
}

/// With the right digest at its end, whatever it says.
void fuzz_order(Bytes input) {
    std::vector<std::byte> file(input.begin(), input.end());
    (void)decode_order(file);
    if (file.size() >= sizeof(Digest)) {
        const std::size_t body = file.size() - sizeof(Digest);
        put_digest(file, body, sha256(Bytes(file).first(body)));
        const auto order = decode_order(file);
        if (order && encode_order(*order) != file) {
            std::abort();
        }
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    const Bytes input = std::as_bytes(std::span(data + 1, size - 1));
    switch (data[0] % 8) {
    case 0:
        (void)decode_reference({reinterpret_cast<const char*>(data + 1), size - 1}, "a");
        break;
    case 1:
        fuzz_manifest(input, false);
        break;
    case 2:
        fuzz_manifest(input, true);
        break;
    case 3:
        fuzz_record(input);
        break;
    case 4:
        fuzz_pack(input);
        break;
    case 5:
        fuzz_node(input);
        break;
    case 6:
        (void)check_lmdb(input);
        break;
    default:
        fuzz_order(input);
        break;
    }
    return 0;
}
