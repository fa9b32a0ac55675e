// vm digest: what a machine is, in 64 hexadecimal digits.
#include <memory>

#include "src/cli/verbs.hpp"
#include "src/control/keeper.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

struct DigestOptions {
    std::string what;
    std::string store;
    bool machine = false;
    bool guest = false;
    bool json = false;
};

Result<control::Object> digest_of_snapshot(const std::string& directory, const std::string& tag) {
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    const auto snapshot = TRY(store.load(tag));
    const snapshot::Manifest& manifest = snapshot.manifest();
    control::Object object;
    object.add("tag", tag)
        .add("count", manifest.provenance.count)
        .add("machineDigest", to_hex(manifest.machine_digest))
        .add("guestDigest", to_hex(TRY(control::guest_digest(
                                manifest.contract, snapshot.units(), manifest.memory_root,
                                snapshot::images_digest(manifest.images)))))
        .add("memoryRoot", to_hex(manifest.memory_root))
        .add("manifest", to_hex(manifest.digest));
    return object;
}

bool has_tag(const std::string& directory, const std::string& tag) {
    const auto store = snapshot::Store::open(directory, snapshot::Store::Mode::existing);
    if (!store) {
        return false;
    }
    const auto entries = store->list();
    return entries && std::any_of(entries->begin(), entries->end(),
                                  [&](const auto& entry) { return entry.tag == tag; });
}

Result<control::Object> digest_of_machine(const std::string& directory, const DigestOptions& o) {
    auto answer = ask_machine(o.what, "", {.verb = "digest", .arguments = {}});
    if (!answer && !o.machine) {
        return fail(answer.error().code,
                    "there is no snapshot " + o.what + " in " + directory + "; " +
                        answer.error().message,
                    "see what there is with: vm snap ls, vm ps");
    }
    return answer;
}

Result<int> digest(const DigestOptions& o) {
    const std::string directory = TRY(control::store_directory(o.store));
    const bool snapshot = !o.machine && (!o.store.empty() || has_tag(directory, o.what));
    const control::Object object =
        TRY(snapshot ? digest_of_snapshot(directory, o.what) : digest_of_machine(directory, o));
    print_line(o.json ? object.to_json() : object.text(o.guest ? "guestDigest" : "machineDigest"));
    return 0;
}

} // namespace

void add_digest(CLI::App& app, int& status) {
    auto o = std::make_shared<DigestOptions>();
    CLI::App* const verb =
        add_verb(app, "digest", "Tell the machine digest of a snapshot, or of a running machine",
                 "vm digest booted", o->json);
    add_argument(verb, "what", o->what,
                 "Tag of a snapshot; where there is none, name of a machine");
    add_option(verb, "--store", o->store, "Directory of snapshots; then only a tag is meant");
    add_flag(verb, "--machine", o->machine, "Only the name of a machine is meant");
    add_flag(verb, "--guest", o->guest, "The guest digest, which leaves out L0's own policy");
    on_chosen(verb, status, o->json, [o] { return digest(*o); });
}

} // namespace nestor::cli
