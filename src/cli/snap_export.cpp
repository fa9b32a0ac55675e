// vm snap export: snapshots as one stream, for vm snap import elsewhere.
//
// With --for it is one that an older version takes (older_version.hpp), or all that is in the way
// of that is told and nothing is written. A file appears under its name when it is complete and on
// disk; what is cut short is removed.
#include <cerrno>
#include <cstdio>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include "src/base/fd.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"
#include "src/control/older_version.hpp"

namespace nestor::cli {
namespace {

struct ExportOptions {
    std::vector<std::string> tags;
    std::string to = "-";
    std::string version;
    std::string store;
    bool json = false;
};

using WriteAs = std::optional<snapshot::WriteAs>;

Result<snapshot::ExportReport> export_to_fd(const ExportOptions& o, const snapshot::Store& store,
                                            const WriteAs& write_as, int fd) {
    Work work("exporting", o.json);
    snapshot::ExportOptions options;
    options.write_as = write_as;
    options.progress = work.progress();
    return store.export_to(o.tags, fd, options);
}

Result<snapshot::ExportReport> export_to_file(const ExportOptions& o, const snapshot::Store& store,
                                              const WriteAs& write_as) {
    const std::string part = o.to + ".part";
    const Fd file(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.get() < 0) {
        return fail_errno("making " + part, errno);
    }
    auto report = export_to_fd(o, store, write_as, file.get());
    if (report && ::fsync(file.get()) != 0) {
        report = Result<snapshot::ExportReport>(fail_errno("writing " + part, errno));
    }
    if (report && ::rename(part.c_str(), o.to.c_str()) != 0) {
        report = Result<snapshot::ExportReport>(fail_errno("renaming to " + o.to, errno));
    }
    if (!report) {
        (void)::unlink(part.c_str());
    }
    return report;
}

/// Whether `version` takes all of them; tells what is in the way, and what people should know.
/// Where the stream itself goes to standard output, what is in the way is an error.
Result<bool> all_can_go(const ExportOptions& o, const snapshot::Store& store,
                        const control::OlderVersion& version) {
    bool can = true;
    const std::string there = "vm " + version.name;
    for (const std::string& tag : o.tags) {
        const auto found = control::findings_for(TRY(store.load(tag)), version);
        print_notes(found, o.json);
        if (o.to == "-") {
            TRY(control::refuse(there + " cannot run snapshot " + tag, found));
        } else if (!control::can_run(found)) {
            can = false;
            (void)print_findings(tag, there, found, o.json);
        }
    }
    return can;
}

Result<int> export_snapshots(const ExportOptions& o) {
    const auto store = TRY(open_store(o.store));
    WriteAs write_as;
    if (!o.version.empty()) {
        const control::OlderVersion version = TRY(control::older_version(o.version));
        if (!TRY(all_can_go(o, store, version))) {
            return static_cast<int>(ErrorCode::incompatible);
        }
        write_as = control::write_as(version);
    }
    if (o.to == "-") {
        if (::isatty(STDOUT_FILENO) == 1) {
            return fail(ErrorCode::usage, "standard output is a terminal",
                        "redirect it, or name a file with --to");
        }
        TRY(export_to_fd(o, store, write_as, STDOUT_FILENO));
        return 0;
    }
    const snapshot::ExportReport report = TRY(export_to_file(o, store, write_as));
    control::Object object;
    object.add("file", o.to)
        .add("snapshots", report.snapshots)
        .add("pages", report.pages)
        .add("bytes", report.bytes);
    print_line(o.json ? object.to_json()
                      : o.to + ": " + count_text(report.snapshots, "snapshot") + ", " +
                            count_text(report.pages, "page") + ", " + size_text(report.bytes));
    return 0;
}

} // namespace

void add_snap_export(CLI::App& snap, int& status) {
    auto o = std::make_shared<ExportOptions>();
    CLI::App* const verb = add_verb(
        snap, "export", "Write snapshots into one file or stream",
        "vm snap export booted --to booted.snap\n"
        "  vm snap export booted | ssh other vm snap import -\n"
        "  vm snap export booted --for 0.1.0 --to booted.snap\n"
        "Exit status 4 when that version could not run one of them; then nothing is written.",
        o->json);
    add_arguments(verb, "tag", o->tags, "Snapshots; equal pages of them are written once");
    add_option(verb, "--to", o->to, "File; - for standard output");
    add_option(verb, "--for", o->version, "An older version that is to import it");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return export_snapshots(*o); });
}

} // namespace nestor::cli
