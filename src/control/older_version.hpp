// Older versions of this program: what each of them takes, so that a machine can be written for it.
//
// All of it is what the release itself said: its `vm host dump` and its frozen schemas, which the
// build embeds (fixtures/README.md, "What a release takes").
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/state/known.hpp"
#include "snapshot/snapshot.hpp"
#include "src/control/contract.hpp"

namespace nestor::control {

struct OlderVersion {
    std::string name;
    HostOffer offer; ///< of a host that lacks nothing
    state::KnownSchema schema;
    Digest schema_set;
};

/// Names of the versions that there are, oldest first.
[[nodiscard]] std::vector<std::string> older_versions();
/// An unknown name is a usage error that lists the known ones.
[[nodiscard]] Result<OlderVersion> older_version(std::string_view name);

/// Everything that keeps `version` from running the machine once it was written for it, in one go:
/// findings() of what it offers, state and units that it has no place for, and CPUs that it would
/// not take. What does not block is told too: what the machine leaves behind, and what that
/// version does otherwise.
[[nodiscard]] std::vector<Finding> findings_for(const snapshot::Snapshot& snapshot,
                                                const OlderVersion& version);

/// How its manifests are written.
[[nodiscard]] snapshot::WriteAs write_as(const OlderVersion& version);

/// What the build embeds of one release.
struct ReleaseTexts {
    std::string_view name;
    std::string_view host;    ///< host.json
    std::string_view layouts; ///< all .layout files
};
[[nodiscard]] std::span<const ReleaseTexts> release_texts();

} // namespace nestor::control
