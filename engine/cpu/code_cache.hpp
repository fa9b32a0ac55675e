// Decoded blocks, by guest-physical address and mode.
//
// Owns the memory of blocks and ops. A block that became stale is not freed: its `n` becomes `dead`
// and its ops return to the dispatcher, so that whoever still points at it finds out. When the
// arena is full everything is forgotten at once, between two blocks.
#pragma once

#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/cpu/op.hpp"
#include "src/base/types.hpp"

namespace nestor::cpu {

class CodeCache final {
public:
    CodeCache();

    /// The live block for a first byte (by its place in host memory) in a mode key, or null.
    [[nodiscard]] Block* find(const u8* host, u32 mode) const {
        for (Block* b = buckets_[bucket(host, mode)]; b != nullptr; b = b->hash_next) {
            if (b->host == host && b->mode == mode) {
                return b;
            }
        }
        return nullptr;
    }

    /// Copies a decoded block into the arena and makes it findable.
    Block* insert(const Block& block, const Op* ops);

    /// Kills blocks that contain any of `size` bytes at `phys`, all in one page. Returns whether
    /// the page still has blocks.
    bool invalidate(u64 phys, unsigned size);
    /// Kills one block.
    void kill(Block* block);

    /// Whether reset() should be called before the next insert.
    [[nodiscard]] bool full() const { return used_ >= capacity; }
    [[nodiscard]] bool empty() const { return used_ == 0; }
    /// Forgets everything. No block may be running, and jump caches must be cleared.
    void reset();

private:
    static constexpr std::size_t capacity = std::size_t{96} << 20;
    static constexpr std::size_t chunk_size = std::size_t{1} << 20;
    static constexpr unsigned bucket_bits = 16;

    static std::size_t bucket(const u8* host, u32 mode) {
        const u64 h = (reinterpret_cast<u64>(host) ^ u64{mode} << 40) * 0x9e3779b97f4a7c15u;
        return h >> (64 - bucket_bits);
    }
    void* allocate(std::size_t bytes);
    void unhash(Block* block);

    struct Free {
        void operator()(Block** buckets) const { std::free(buckets); }
    };
    std::unique_ptr<Block*[], Free> buckets_; ///< calloc: pages that no block hashes to stay holes
    std::unordered_map<u64, std::vector<Block*>>
        pages_; ///< by guest frame; crossing blocks in both
    struct alignas(page_size) Chunk {
        std::byte bytes[chunk_size];
    };
    std::vector<std::unique_ptr<Chunk>> chunks_;
    std::size_t chunk_used_ = chunk_size;
    std::size_t used_ = 0;
};

} // namespace nestor::cpu
