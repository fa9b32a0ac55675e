// Fuzzer of the export stream: changes to a whole stream, with seals that fit again where the input
// says so. An import is refused and leaves nothing, or what it took in can be read to the last
// page.
#include <cstdint>
#include <cstdlib>

#include <sys/mman.h>
#include <unistd.h>

#include "src/base/fd.hpp"
#include "tests/snapshot/machine.hpp"
#include "tests/snapshot/stream_parts.hpp"

namespace {

using namespace nestor;
using namespace nestor::snapshot;
using testing::Bytes;
using testing::Machine;
using testing::StreamParts;

void require(bool good) {
    if (!good) {
        std::abort();
    }
}

Fd memory_file(const Bytes& bytes) {
    Fd file(::memfd_create("stream", MFD_CLOEXEC));
    require(::write(file.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    require(::lseek(file.get(), 0, SEEK_SET) == 0);
    return file;
}

Bytes make_stream(const testing::TempDir& dir) {
    Machine machine = Machine::blank(130, 3);
    for (u32 i = 0; i < 8; ++i) {
        machine.fill(0, i * 16, i + 1);
    }
    machine.fill(1, 2, 77);
    machine.add_images(99, 70 * page_size);
    Store store = testing::make_store(dir / "origin");
    require(testing::save(store, machine, "tag").has_value());
    const Fd file(::memfd_create("stream", MFD_CLOEXEC));
    require(store.export_to(std::vector<std::string>{"tag"}, file.get()).has_value());
    Bytes bytes(static_cast<std::size_t>(::lseek(file.get(), 0, SEEK_CUR)));
    require(::pread(file.get(), bytes.data(), bytes.size(), 0) ==
            static_cast<ssize_t>(bytes.size()));
    return bytes;
}

/// Bytes of the input, one after the other; zeros behind its end.
class Input final {
public:
    Input(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
    u32 next(unsigned count) {
        u32 value = 0;
        for (; count != 0; --count) {
            value = value << 8 | (left_ != 0 ? *data_++ : 0);
            left_ -= left_ != 0 ? 1 : 0;
        }
        return value;
    }
    [[nodiscard]] bool empty() const { return left_ == 0; }

private:
    const std::uint8_t* data_;
    std::size_t left_;
};

Bytes changed(StreamParts parts, Input& input) {
    const bool seal = (input.next(1) & 3) != 0;
    while (!input.empty()) {
        const u32 which = input.next(1);
        const u32 at = input.next(2);
        const auto value = static_cast<char>(input.next(1));
        const u32 part = which % (static_cast<u32>(parts.records.size()) + 1);
        Bytes& bytes = part == 0 ? parts.heads : parts.records[part - 1];
        if (which >= 0xf0 && part != 0) {
            bytes = parts.records[at % parts.records.size()];
        } else {
            bytes[at % bytes.size()] = value;
        }
    }
    if (seal) {
        parts.seal();
    }
    return parts.joined();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const testing::TempDir dir(true);
    static const StreamParts whole(make_stream(dir));
    static Store store = testing::make_store(dir / "store");
    Input input(data, size);
    const Fd file = memory_file(changed(whole, input));
    const auto report = store.import_from(file.get());
    const auto entries = store.list();
    require(entries.has_value() && entries->size() == (report ? report->tags.size() : 0));
    if (report) {
        for (const std::string& tag : report->tags) {
            const auto loaded = store.load(tag);
            require(loaded.has_value() && loaded->verify(1).has_value());
            require(store.remove(tag).has_value());
        }
    }
    return 0;
}
