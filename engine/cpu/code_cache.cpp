// Storage and invalidation of decoded blocks.
//
// The surprising thing is op_stale: it replaces the handler of every op of a killed block, so an
// instruction that overwrites its own block's tail finds the handler gone when it goes on, and no
// store has to test for it.
#include "engine/cpu/code_cache.hpp"

#include <algorithm>
#include <cstring>

#include "engine/cpu/cpu.hpp"
#include "src/base/check.hpp"

namespace nestor::cpu {

namespace {

const Op* op_stale(Cpu& cpu, const Op* op) {
    cpu.outcome = Outcome::resume;
    return cpu.abandon(op);
}

} // namespace

Block nowhere{.n = Block::dead};

CodeCache::CodeCache()
    : buckets_(static_cast<Block**>(std::calloc(std::size_t{1} << bucket_bits, sizeof(Block*)))) {
    CHECK(buckets_ != nullptr);
}

void* CodeCache::allocate(std::size_t bytes) {
    // Not where Cpu::hot_bytes lie in their page, and not across one: see there.
    std::size_t at = chunk_used_;
    if ((at & page_mask) + bytes > page_size) {
        at = align_up(at, page_size);
    }
    at = std::max(at, (at & ~page_mask) + Cpu::hot_bytes);
    if (at + bytes > chunk_size) {
        chunks_.push_back(std::make_unique_for_overwrite<Chunk>());
        used_ += chunk_size;
        at = Cpu::hot_bytes;
    }
    chunk_used_ = at + bytes;
    return chunks_.back()->bytes + at;
}

Block* CodeCache::insert(const Block& block, const Op* ops) {
    // One more op than instructions: what a block that does not end in a jump falls into.
    const std::size_t body = sizeof(Op) * (block.count + 1);
    auto* b = new (allocate(sizeof(Block) + body)) Block(block);
    std::memcpy(static_cast<void*>(b->ops()), ops, body);
    Block*& head = buckets_[bucket(b->host, b->mode)];
    b->hash_next = head;
    head = b;
    pages_[b->phys >> page_shift].push_back(b);
    if (b->crosses) {
        pages_[b->second_page >> page_shift].push_back(b);
    }
    return b;
}

void CodeCache::unhash(Block* block) {
    Block** p = &buckets_[bucket(block->host, block->mode)];
    while (*p != nullptr && *p != block) {
        p = &(*p)->hash_next;
    }
    if (*p == block) {
        *p = block->hash_next;
    }
}

void CodeCache::kill(Block* block) {
    if (block->n == Block::dead) {
        return;
    }
    unhash(block);
    block->n = Block::dead;
    for (u32 i = 0; i <= block->count; ++i) {
        block->ops()[i].fn = op_stale;
    }
    const auto forget = [&](u64 page) {
        if (const auto it = pages_.find(page >> page_shift); it != pages_.end()) {
            std::erase(it->second, block);
        }
    };
    forget(block->phys);
    if (block->crosses) {
        forget(block->second_page);
    }
}

bool CodeCache::invalidate(u64 phys, unsigned size) {
    const auto it = pages_.find(phys >> page_shift);
    if (it == pages_.end()) {
        return false;
    }
    const u64 page = phys & ~page_mask;
    std::vector<Block*> hit;
    for (Block* b : it->second) {
        // A crossing block's tail lies at the start of its second page.
        const bool tail = b->crosses && b->second_page == page && (b->phys & ~page_mask) != page;
        const u64 first = tail ? page : b->phys;
        const u64 end = tail ? page + ((b->phys + b->bytes) & page_mask)
                             : std::min(b->phys + b->bytes, page + page_size);
        if (first < phys + size && phys < end) {
            hit.push_back(b);
        }
    }
    for (Block* b : hit) {
        kill(b);
    }
    if (it->second.empty()) {
        pages_.erase(it);
        return false;
    }
    return true;
}

void CodeCache::reset() {
    if (empty()) {
        return;
    }
    std::fill_n(buckets_.get(), std::size_t{1} << bucket_bits, nullptr);
    pages_.clear();
    chunks_.clear();
    chunk_used_ = chunk_size;
    used_ = 0;
}

} // namespace nestor::cpu
