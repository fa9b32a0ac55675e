// Work in chunks on a few threads. Internal to snapshot.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "src/base/result.hpp"

#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

/// Calls work(worker, chunk) for every chunk below `chunks`, on up to `threads` threads, this one
/// among them. The first error stops the rest and is returned.
inline Result<> parallel_chunks(u64 chunks, unsigned threads,
                                const std::function<Result<>(unsigned, u64)>& work) {
    std::atomic<u64> next{0};
    std::mutex mutex;
    std::optional<Error> error;
    const auto loop = [&](unsigned worker) {
        for (u64 chunk = next++; chunk < chunks; chunk = next++) {
            Result<> done = work(worker, chunk);
            if (!done) {
                next = chunks;
                const std::scoped_lock lock(mutex);
                if (!error) {
                    error = std::move(done).error();
                }
            }
        }
    };
    {
        std::vector<std::jthread> others;
        for (unsigned worker = 1; worker < threads && worker < chunks; ++worker) {
            others.emplace_back(loop, worker);
        }
        loop(0);
    }
    if (error) {
        return Failure(std::move(*error));
    }
    return {};
}

/// Adds up what several threads have done and reports it, one call at a time.
class ProgressMeter final {
public:
    ProgressMeter(const Progress& progress, u64 total) : progress_(progress), total_(total) {}

    [[nodiscard]] Result<> add(u64 bytes) {
        if (!progress_) {
            return {};
        }
        const std::scoped_lock lock(mutex_);
        done_ += bytes;
        if (!progress_(done_, total_)) {
            return fail(ErrorCode::failed, "interrupted");
        }
        return {};
    }

private:
    const Progress& progress_;
    u64 total_;
    u64 done_ = 0;
    std::mutex mutex_;
};

} // namespace nestor::snapshot
