// vm snap: the verbs about single snapshots, and what they have in common.
#include "src/cli/snap.hpp"

#include <ctime>

#include "src/cli/verbs.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

void add_store_option(CLI::App* verb, std::string& store) {
    add_option(verb, "--store", store,
               "Directory of snapshots [$NESTOR_STORE, or nestor in $XDG_DATA_HOME]");
}

Result<snapshot::Store> open_store(const std::string& given) {
    return snapshot::Store::open(TRY(control::store_directory(given)),
                                 snapshot::Store::Mode::existing);
}

Result<std::chrono::seconds> parse_wait(const std::string& text) {
    return std::chrono::seconds(TRY(parse_number("--wait", text, 1'000'000)));
}

std::string time_text(i64 unix_ns) {
    const std::time_t seconds = static_cast<std::time_t>(unix_ns / 1'000'000'000);
    std::tm utc{};
    char text[32] = "";
    if (::gmtime_r(&seconds, &utc) != nullptr) {
        std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
    return text;
}

u64 memory_of(const snapshot::Manifest& manifest) {
    u64 bytes = 0;
    for (const snapshot::RegionEntry& region : manifest.regions) {
        bytes += region.size;
    }
    return bytes;
}

const char* kind_of(const snapshot::ImageEntry& image) {
    return image.kind == snapshot::ImageKind::kernel ? "kernel" : "module";
}

const char* tier_of(const snapshot::Manifest& manifest) {
    return manifest.tier == snapshot::Tier::resume ? "resume" : "clone";
}

control::Object summary(const std::string& tag, const snapshot::Manifest& manifest) {
    control::Object object;
    object.add("tag", tag)
        .add("created", time_text(manifest.provenance.created_unix_ns))
        .add("machine", manifest.provenance.machine)
        .add("count", manifest.provenance.count)
        .add("memory", memory_of(manifest))
        .add("tier", tier_of(manifest))
        .add("machineDigest", to_hex(manifest.machine_digest))
        .add("manifest", to_hex(manifest.digest));
    return object;
}

void add_snap(CLI::App& app, int& status) {
    CLI::App* const snap = add_group(app, "snap", "Look at and manage snapshots");
    add_snap_ls(*snap, status);
    add_snap_show(*snap, status);
    add_snap_diff(*snap, status);
    add_snap_log(*snap, status);
    add_snap_tag(*snap, status);
    add_snap_verify(*snap, status);
    add_snap_rm(*snap, status);
    add_snap_export(*snap, status);
    add_snap_import(*snap, status);
}

} // namespace nestor::cli
