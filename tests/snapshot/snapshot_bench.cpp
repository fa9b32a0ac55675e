// Times saving and restoring: 512 MiB of memory, some 200 MiB of it the contents of the host's
// shared libraries, the rest zero. Prints one line per figure; a directory to work in may be given.
//
// Not a test: figures depend on the disk. tools/bench runs it beside its peers.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <sys/mman.h>
#include <time.h>

#include "tests/snapshot/machine.hpp"

namespace {

using namespace nestor;
using namespace nestor::snapshot;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// Of all threads; tells what a busy host adds to the times.
double cpu_ms() {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

u8* map_memory(u64 size) {
    void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("mmap");
        std::exit(8);
    }
    return static_cast<u8*>(memory);
}

/// Fills up to `limit` bytes from libraries, with holes of zero pages between them.
u64 fill(u8* memory, u64 size, u64 limit) {
    u64 at = u64{1} << 20;
    u64 filled = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(
             "/usr/lib", std::filesystem::directory_options::skip_permission_denied)) {
        if (!entry.is_regular_file() || entry.is_symlink()) {
            continue;
        }
        const u64 length = std::min<u64>(entry.file_size(), limit - filled);
        if (at + length > size) {
            break;
        }
        std::ifstream in(entry.path(), std::ios::binary);
        in.read(reinterpret_cast<char*>(memory + at), static_cast<std::streamsize>(length));
        filled += length;
        at = (at + length + 2 * page_size) & ~page_mask;
        if (filled >= limit) {
            break;
        }
    }
    return filled;
}

template <class T>
T must(Result<T> result) {
    if (!result) {
        std::fprintf(stderr, "%s\n", result.error().message.c_str());
        std::exit(8);
    }
    return std::move(*result);
}

void print(const char* what, const SaveReport& r) {
    std::printf("%s: total %.1f ms (index %.1f, pages %.1f, map %.1f, sync %.1f, commit %.1f), "
                "pages %llu zero %llu new %llu, wrote %.1f MiB, index %.1f MiB\n",
                what, r.total_ms, r.index_ms, r.pages_ms, r.map_ms, r.sync_ms, r.commit_ms,
                static_cast<unsigned long long>(r.pages),
                static_cast<unsigned long long>(r.zero_pages),
                static_cast<unsigned long long>(r.new_pages),
                static_cast<double>(r.bytes_written) / 1048576.0,
                static_cast<double>(r.index_bytes) / 1048576.0);
}

} // namespace

int main(int argc, char** argv) {
    const u64 size = u64{512} << 20;
    const testing::TempDir temp;
    const std::string dir = argc > 1 ? argv[1] : temp / "store";
    u8* const memory = map_memory(size);
    std::printf("filled %llu MiB\n",
                static_cast<unsigned long long>(fill(memory, size, u64{200} << 20) >> 20));
    const std::vector<Region> regions{{Gpa(0), size, memory}};
    const std::vector<Unit> units{{"cpu", 1, std::vector<std::byte>(8192)}};
    Store store = must(Store::open(dir, Store::Mode::create));
    SaveRequest request;
    request.units = units;
    request.regions = regions;
    request.tag = "first";
    double cpu_before = cpu_ms();
    print("full save", must(store.save(request)));
    std::printf("  processor time %.1f ms\n", cpu_ms() - cpu_before);
    request.tag = "second";
    cpu_before = cpu_ms();
    print("save again, nothing changed", must(store.save(request)));
    std::printf("  processor time %.1f ms\n", cpu_ms() - cpu_before);

    auto start = Clock::now();
    MemoryDigester digester;
    must(digester.root(regions));
    std::printf("digest of all memory: %.1f ms\n", ms_since(start));
    start = Clock::now();
    must(digester.root(regions));
    std::printf("digest with nothing dirty: %.3f ms\n", ms_since(start));
    for (u64 i = 0; i < 1000; ++i) {
        const u64 page = i * 97 % (size >> page_shift);
        memory[page << page_shift] += 1;
        digester.mark_dirty(Gfn(page));
    }
    start = Clock::now();
    must(digester.root(regions));
    std::printf("digest with 1000 scattered pages dirty: %.3f ms\n", ms_since(start));
    request.tag = "third";
    request.parent = "second";
    request.digester = &digester;
    print("save with kept digests, 1000 pages changed", must(store.save(request)));

    start = Clock::now();
    const Store again = must(Store::open(dir, Store::Mode::existing));
    const Snapshot snapshot = must(again.load("first"));
    std::printf("open and load manifest and units: %.3f ms\n", ms_since(start));
    PageReader reader = snapshot.page_reader();
    start = Clock::now();
    (void)must(reader.page(Gfn(300)));
    std::printf("first page: %.3f ms\n", ms_since(start));
    start = Clock::now();
    for (u64 i = 0; i < 1000; ++i) {
        (void)must(reader.page(Gfn(i * 7919 % 50000)));
    }
    std::printf("1000 scattered pages: %.1f ms\n", ms_since(start));
    start = Clock::now();
    MemoryDigester seeded;
    if (!snapshot.seed(seeded)) {
        return 8;
    }
    std::printf("page digests from the memory map: %.1f ms\n", ms_since(start));
    for (const unsigned threads : {1u, 2u}) {
        u8* const copy = map_memory(size);
        const std::vector<RegionTarget> targets{{Gpa(0), size, copy}};
        const double cpu = cpu_ms();
        start = Clock::now();
        const auto done = snapshot.read_all(targets, {true, threads, {}});
        const double ms = ms_since(start);
        if (!done) {
            std::fprintf(stderr, "%s\n", done.error().message.c_str());
            return 8;
        }
        std::printf("eager restore, %u threads: %.1f ms (%.1f ms of processor time)\n", threads, ms,
                    cpu_ms() - cpu);
        ::munmap(copy, size);
    }
    return 0;
}
