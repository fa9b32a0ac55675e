// Leases: what a reader holds so that gc keeps the snapshot it reads, whatever happens to the tag.
// Internal to snapshot.
//
// A lease is an empty file leases/MANIFEST.PID.N with a shared flock on it. The lock ends with its
// process however that dies, so a lease without a lock is stale and gc removes it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/base/digest.hpp"
#include "src/base/fd.hpp"

#include "snapshot/files.hpp"

namespace nestor::snapshot {

class Lease final {
public:
    /// nullptr where none can be made: a store that cannot be written needs none.
    [[nodiscard]] static std::shared_ptr<const Lease> take(const Layout& layout,
                                                           const Digest& manifest);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    /// Whether its file is still there.
    [[nodiscard]] bool valid() const;

private:
    Lease(Fd fd, std::string path);
    Fd fd_;
    std::string path_;
    int process_; ///< that took it; after a fork the other one shares the lock
};

/// The manifests that are leased, sorted, each once. Removes stale leases. For the writer.
[[nodiscard]] Result<std::vector<Digest>> live_leases(const Layout& layout);

/// Tells stores apart, whatever path they were opened by; empty where there is none.
[[nodiscard]] std::string store_identity(const Layout& layout);

} // namespace nestor::snapshot
