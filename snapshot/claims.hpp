// Who resumed the one machine of a snapshot. Internal to snapshot.
//
// The owner token of a snapshot is its manifest's digest, which no other save has; who holds it is
// said by the file claims/MANIFEST. So it is one token under however many tags.
#pragma once

#include <optional>

#include "snapshot/files.hpp"
#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

/// Nothing where nobody has claimed it. A damaged claim counts as one, by "somebody".
[[nodiscard]] Result<std::optional<Claim>> read_claim(const Layout& layout, const Digest& manifest);

/// Puts a claim on disk; the caller has the writer lock and found none.
[[nodiscard]] Result<> write_claim(const Layout& layout, const Digest& manifest,
                                   const Claim& claim);

} // namespace nestor::snapshot
