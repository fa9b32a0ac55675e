// vm check: whether a snapshot can be restored here, or on a host that described itself.
#include <memory>

#include <CLI/CLI.hpp>

#include "src/base/fd.hpp"
#include "src/cli/verbs.hpp"
#include "src/control/contract.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

constexpr std::size_t max_description = 1 << 20;

struct CheckOptions {
    std::string tag;
    std::string store;
    std::string against = "host";
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

void print_json(const std::string& tag, const std::vector<control::Finding>& findings) {
    std::vector<std::string> lines;
    for (const control::Finding& f : findings) {
        control::Object line;
        line.add("path", f.path).add("have", f.have).add("need", f.need).add("remedy", f.remedy);
        lines.push_back(line.to_json());
    }
    control::Object whole;
    whole.add("tag", tag).add("restorable", findings.empty());
    whole.add("findings", control::RawJson{control::json_array(lines)});
    print_line(whole.to_json());
}

Result<int> check(const CheckOptions& o) {
    const control::HostOffer offer = TRY(offer_of(o.against));
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    const auto snapshot = TRY(store.load(o.tag));
    const auto found = TRY(control::findings(snapshot.manifest(), offer), "snapshot " + o.tag);
    if (o.json) {
        print_json(o.tag, found);
    } else if (found.empty()) {
        print_line(o.tag + " can be restored there");
    }
    for (const control::Finding& f : o.json ? std::vector<control::Finding>() : found) {
        print_line(f.path + ": have " + f.have + ", need " + f.need + ": " + f.remedy);
    }
    return found.empty() ? 0 : static_cast<int>(ErrorCode::incompatible);
}

} // namespace

void add_check(CLI::App& app, int& status) {
    auto o = std::make_shared<CheckOptions>();
    CLI::App* const verb = add_verb(app, "check", "Tell what keeps a snapshot from being restored",
                                    "vm check booted --against other-host.json", o->json);
    verb->add_option("tag", o->tag, "Snapshot")->required();
    verb->add_option("--against", o->against, "host, or a file that 'vm host dump --json' wrote")
        ->capture_default_str();
    verb->add_option("--store", o->store, "Directory of snapshots");
    on_chosen(verb, status, o->json, [o] { return check(*o); });
}

} // namespace nestor::cli
