// vm snap export: snapshots as one stream, for vm snap import elsewhere.
//
// A file appears under its name when it is complete and on disk; what is cut short is removed.
#include <cerrno>
#include <cstdio>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include "src/base/fd.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"

namespace nestor::cli {
namespace {

struct ExportOptions {
    std::vector<std::string> tags;
    std::string to = "-";
    std::string store;
    bool json = false;
};

Result<snapshot::ExportReport> export_to_fd(const ExportOptions& o, const snapshot::Store& store,
                                            int fd) {
    Work work("exporting", o.json);
    snapshot::ExportOptions options;
    options.progress = work.progress();
    return store.export_to(o.tags, fd, options);
}

Result<snapshot::ExportReport> export_to_file(const ExportOptions& o,
                                              const snapshot::Store& store) {
    const std::string part = o.to + ".part";
    const Fd file(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.get() < 0) {
        return fail_errno("making " + part, errno);
    }
    auto report = export_to_fd(o, store, file.get());
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

Result<int> export_snapshots(const ExportOptions& o) {
    const auto store = TRY(open_store(o.store));
    if (o.to == "-") {
        if (::isatty(STDOUT_FILENO) == 1) {
            return fail(ErrorCode::usage, "standard output is a terminal",
                        "redirect it, or name a file with --to");
        }
        TRY(export_to_fd(o, store, STDOUT_FILENO));
        return 0;
    }
    const snapshot::ExportReport report = TRY(export_to_file(o, store));
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
    CLI::App* const verb = add_verb(snap, "export", "Write snapshots into one file or stream",
                                    "vm snap export booted --to booted.snap\n"
                                    "  vm snap export booted | ssh other vm snap import -",
                                    o->json);
    add_arguments(verb, "tag", o->tags, "Snapshots; equal pages of them are written once");
    add_option(verb, "--to", o->to, "File; - for standard output");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return export_snapshots(*o); });
}

} // namespace nestor::cli
