// vm check: whether a snapshot can be restored here, or on a host that described itself. Everything
// that is in the way is told at once.
#include <memory>

#include "src/base/fd.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"
#include "src/control/contract.hpp"
#include "src/control/older_version.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

constexpr std::size_t max_description = 1 << 20;

struct CheckOptions {
    std::string tag;
    std::string store;
    std::string against = "host";
    std::string version;
    bool json = false;
};

Result<control::HostOffer> offer_of(const std::string& against) {
    if (against == "host") {
        return control::this_host();
    }
    const auto bytes = TRY(read_file(against, max_description));
    return TRY(control::offer_from_json(
                   std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())),
               against);
}

/// Whether an older version could run it, once it is written for that: vm snap export --for.
Result<int> check_for(const CheckOptions& o) {
    const control::OlderVersion version = TRY(control::older_version(o.version));
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    const auto found = control::findings_for(TRY(store.load(o.tag)), version);
    return print_findings(o.tag, "vm " + version.name, found, o.json);
}

Result<int> check(const CheckOptions& o) {
    if (!o.version.empty()) {
        return check_for(o);
    }
    const control::HostOffer offer = TRY(offer_of(o.against));
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    const auto snapshot = TRY(store.load(o.tag));
    std::vector<control::Finding> found = control::findings(snapshot, offer);
    const auto tiers = control::tier_findings(snapshot.manifest(), TRY(store.claim_of(snapshot)));
    found.insert(found.end(), tiers.begin(), tiers.end());
    const auto images = control::image_findings(snapshot.manifest());
    found.insert(found.end(), images.begin(), images.end());
    return print_findings(o.tag, o.against, found, o.json);
}

} // namespace

void add_check(CLI::App& app, int& status) {
    auto o = std::make_shared<CheckOptions>();
    CLI::App* const verb =
        add_verb(app, "check", "Tell what keeps a snapshot from being restored",
                 "vm check booted --against other-host.json\n"
                 "Exit status 4 when something is in the way. A machine of older engine\n"
                 "semantics is not: what changed since is told.",
                 o->json);
    add_argument(verb, "tag", o->tag, "Snapshot");
    add_option(verb, "--against", o->against, "host, or a file that vm host dump wrote");
    add_option(verb, "--for", o->version,
               "Instead: an older version that vm snap export --for could write it for");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return check(*o); });
}

} // namespace nestor::cli
