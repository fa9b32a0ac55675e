// vm snap import: takes in what vm snap export wrote. Nothing in the stream is trusted.
#include <cerrno>
#include <chrono>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include "src/base/fd.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {
namespace {

struct ImportOptions {
    std::string from;
    std::string as;
    std::string store;
    std::string wait = "5";
    bool replace = false;
    bool json = false;
};

Result<int> import_snapshots(const ImportOptions& o) {
    const std::string directory = TRY(control::store_directory(o.store));
    auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::create));
    Fd file;
    if (o.from != "-") {
        file = Fd(::open(o.from.c_str(), O_RDONLY | O_CLOEXEC));
        if (file.get() < 0) {
            return fail_errno("opening " + o.from, errno);
        }
    }
    snapshot::ImportReport report;
    {
        Work work("importing", o.json);
        snapshot::ImportOptions options;
        options.as_tag = o.as;
        options.replace = o.replace;
        options.wait_for_writer = TRY(parse_wait(o.wait));
        options.progress = work.progress();
        report = TRY(store.import_from(o.from == "-" ? STDIN_FILENO : file.get(), options),
                     o.from == "-" ? "standard input" : o.from);
    }
    std::vector<std::string> tags;
    std::string names;
    for (const std::string& tag : report.tags) {
        tags.push_back(control::json_string(tag));
        names += (names.empty() ? "" : ", ") + tag;
    }
    control::Object object;
    object.add("tags", control::RawJson{control::json_array(tags)})
        .add("pages", report.pages)
        .add("newPages", report.new_pages)
        .add("bytesRead", report.bytes_read)
        .add("bytesWritten", report.bytes_written);
    print_line(o.json ? object.to_json()
                      : "imported " + names + ": " + std::to_string(report.new_pages) +
                            " new pages of " + std::to_string(report.pages) + ", " +
                            size_text(report.bytes_written) + " written");
    return 0;
}

} // namespace

void add_snap_import(CLI::App& snap, int& status) {
    auto o = std::make_shared<ImportOptions>();
    CLI::App* const verb = add_verb(snap, "import", "Take in what vm snap export wrote",
                                    "vm snap import booted.snap --as from-elsewhere", o->json);
    add_argument(verb, "from", o->from, "File; - for standard input");
    add_option(verb, "--as", o->as, "Tag instead of the one in the stream");
    add_flag(verb, "--replace", o->replace, "Move tags where they exist");
    add_option(verb, "--wait", o->wait, "Seconds to wait while another process writes");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return import_snapshots(*o); });
}

} // namespace nestor::cli
