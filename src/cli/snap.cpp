// vm snap: what is in a store.
#include <cstdio>
#include <ctime>
#include <memory>

#include <CLI/CLI.hpp>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/cli/verbs.hpp"
#include "src/control/keeper.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

struct SnapOptions {
    std::string tag;
    std::string other;
    std::string store;
    bool json = false;
};

Result<snapshot::Store> open_store(const SnapOptions& o) {
    return snapshot::Store::open(TRY(control::store_directory(o.store)),
                                 snapshot::Store::Mode::existing);
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

u64 memory_of(const snapshot::Manifest& m) {
    u64 bytes = 0;
    for (const snapshot::RegionEntry& region : m.regions) {
        bytes += region.size;
    }
    return bytes;
}

const char* tier_of(const snapshot::Manifest& m) {
    return m.tier == snapshot::Tier::resume ? "resume" : "clone";
}

control::Object summary(const std::string& tag, const snapshot::Manifest& m) {
    control::Object object;
    object.add("tag", tag)
        .add("created", time_text(m.provenance.created_unix_ns))
        .add("machine", m.provenance.machine)
        .add("count", m.provenance.count)
        .add("memory", memory_of(m))
        .add("tier", tier_of(m))
        .add("machineDigest", to_hex(m.machine_digest))
        .add("manifest", to_hex(m.digest));
    return object;
}

Result<int> list(const SnapOptions& o) {
    const auto store = TRY(open_store(o));
    std::vector<std::string> lines;
    if (!o.json) {
        std::printf("%-24s %-20s %-16s %16s %9s\n", "TAG", "CREATED", "MACHINE", "COUNT", "MEMORY");
    }
    int status = 0;
    for (const snapshot::ListEntry& entry : TRY(store.list())) {
        if (!entry.manifest) {
            status = static_cast<int>(entry.error->code);
            control::Object line;
            line.add("tag", entry.tag);
            line.add("error", control::RawJson{control::error_object(*entry.error).to_json()});
            lines.push_back(line.to_json());
        } else {
            lines.push_back(summary(entry.tag, *entry.manifest).to_json());
        }
        if (!o.json && entry.manifest) {
            const snapshot::Manifest& m = *entry.manifest;
            std::printf("%-24s %-20s %-16s %16llu %9s\n", entry.tag.c_str(),
                        time_text(m.provenance.created_unix_ns).c_str(),
                        m.provenance.machine.c_str(),
                        static_cast<unsigned long long>(m.provenance.count),
                        size_text(memory_of(m)).c_str());
        } else if (!o.json) {
            std::printf("%-24s damaged: %s\n", entry.tag.c_str(), entry.error->message.c_str());
        }
    }
    if (o.json) {
        print_line(control::json_array(lines));
    }
    return status;
}

void show_json(const std::string& tag, const snapshot::Manifest& m) {
    std::vector<std::string> units;
    for (const snapshot::UnitEntry& unit : m.units) {
        control::Object line;
        const auto* const info = state::erased::find(unit.type);
        line.add("name", unit.name)
            .add("type", info == nullptr ? "unknown" : info->name)
            .add("size", unit.size)
            .add("digest", to_hex(unit.digest));
        units.push_back(line.to_json());
    }
    std::vector<std::string> regions;
    for (const snapshot::RegionEntry& region : m.regions) {
        control::Object line;
        line.add("start", region.start.value())
            .add("size", region.size)
            .add("root", to_hex(region.root));
        regions.push_back(line.to_json());
    }
    control::Object whole = summary(tag, m);
    whole.add("format", u64{m.format})
        .add("schemaSet", to_hex(m.schema_set))
        .add("engineSemantics", u64{m.engine_semantics})
        .add("host", m.provenance.host)
        .add("creator", m.provenance.creator)
        .add("parent", m.parent ? to_hex(*m.parent) : "")
        .add("memoryRoot", to_hex(m.memory_root))
        .add("units", control::RawJson{control::json_array(units)})
        .add("regions", control::RawJson{control::json_array(regions)});
    print_line(whole.to_json());
}

Result<int> show(const SnapOptions& o) {
    const auto store = TRY(open_store(o));
    const auto snapshot = TRY(store.load(o.tag));
    const snapshot::Manifest& m = snapshot.manifest();
    if (o.json) {
        show_json(o.tag, m);
        return 0;
    }
    print_line("tag               " + o.tag);
    print_line("manifest          " + to_hex(m.digest));
    print_line("machine digest    " + to_hex(m.machine_digest));
    print_line("memory root       " + to_hex(m.memory_root));
    print_line("machine           " + m.provenance.machine + " at count " +
               std::to_string(m.provenance.count));
    print_line("saved             " + time_text(m.provenance.created_unix_ns) + " on " +
               m.provenance.host + " by " + m.provenance.creator);
    print_line("format            " + std::to_string(m.format) + ", engine semantics " +
               std::to_string(m.engine_semantics) + ", tier " + tier_of(m));
    for (const snapshot::RegionEntry& region : m.regions) {
        std::printf("memory            %s at 0x%llx\n", size_text(region.size).c_str(),
                    static_cast<unsigned long long>(region.start.value()));
    }
    for (const snapshot::UnitEntry& unit : m.units) {
        std::printf("unit              %-14s %6llu bytes  %.16s\n", unit.name.c_str(),
                    static_cast<unsigned long long>(unit.size), to_hex(unit.digest).c_str());
    }
    return 0;
}

Result<int> verify(const SnapOptions& o) {
    const auto store = TRY(open_store(o));
    const auto snapshot = TRY(store.load(o.tag));
    {
        ProgressLine line("verifying " + o.tag);
        TRY(snapshot.verify(2,
                            [&line](u64 done, u64 total) {
                                line.show(done, total);
                                return true;
                            }),
            "snapshot " + o.tag);
    }
    control::Object object;
    object.add("tag", o.tag).add("sound", true);
    print_line(o.json ? object.to_json() : o.tag + ": every page and unit agrees with its digest");
    return 0;
}

Result<int> remove(const SnapOptions& o) {
    auto store = TRY(open_store(o));
    TRY(store.remove(o.tag));
    control::Object object;
    object.add("tag", o.tag).add("removed", true);
    print_line(o.json ? object.to_json() : "removed " + o.tag);
    return 0;
}

/// Adds the fields in which two units of one type differ.
Result<> add_differences(const snapshot::Unit& left, const snapshot::Unit& right,
                         std::vector<control::Object>& out) {
    const auto* const info = state::erased::find(left.type);
    if (info == nullptr || left.type != right.type) {
        return fail(ErrorCode::incompatible, "unit " + left.name + " is of an unknown type");
    }
    for (const auto& d : TRY(state::erased::diff_bytes(*info, left.bytes, right.bytes))) {
        control::Object line;
        line.add("path", left.name + "." + d.path).add("left", d.left).add("right", d.right);
        out.push_back(line);
    }
    return {};
}

Result<int> diff(const SnapOptions& o) {
    const auto store = TRY(open_store(o));
    const auto left = TRY(store.load(o.tag));
    const auto right = TRY(store.load(o.other));
    std::vector<control::Object> out;
    const auto only = [&out](const std::string& path, const char* l, const char* r) {
        control::Object line;
        line.add("path", path).add("left", l).add("right", r);
        out.push_back(line);
    };
    for (const snapshot::Unit& unit : left.units()) {
        const auto* const other = right.find_unit(unit.name);
        if (other == nullptr) {
            only(unit.name, "present", "absent");
        } else if (!(unit == *other)) {
            TRY(add_differences(unit, *other, out), "unit " + unit.name);
        }
    }
    for (const snapshot::Unit& unit : right.units()) {
        if (left.find_unit(unit.name) == nullptr) {
            only(unit.name, "absent", "present");
        }
    }
    if (left.manifest().memory_root != right.manifest().memory_root) {
        only("memory", to_hex(left.manifest().memory_root).c_str(),
             to_hex(right.manifest().memory_root).c_str());
    }
    std::vector<std::string> lines;
    for (const control::Object& line : out) {
        lines.push_back(line.to_json());
        if (!o.json) {
            print_line(line.text("path") + ": " + line.text("left") + " -> " + line.text("right"));
        }
    }
    if (o.json) {
        print_line(control::json_array(lines));
    }
    return 0;
}

} // namespace

void add_snap(CLI::App& app, int& status) {
    CLI::App* const snap = app.add_subcommand("snap", "Look at and manage snapshots");
    snap->require_subcommand(1);
    struct Row {
        const char* name;
        const char* description;
        const char* example;
        Result<int> (*body)(const SnapOptions&);
        int tags;
    };
    constexpr Row rows[] = {
        {"ls", "List snapshots", "vm snap ls --store /srv/snapshots", list, 0},
        {"show", "Show what a snapshot says about itself", "vm snap show booted --json", show, 1},
        {"diff", "Show the fields in which two snapshots differ", "vm snap diff before after", diff,
         2},
        {"verify", "Read a whole snapshot and compare it with its digests", "vm snap verify booted",
         verify, 1},
        {"rm", "Remove a snapshot's tag", "vm snap rm booted", remove, 1}};
    for (const Row& row : rows) {
        auto o = std::make_shared<SnapOptions>();
        CLI::App* const verb = add_verb(*snap, row.name, row.description, row.example, o->json);
        if (row.tags > 0) {
            verb->add_option("tag", o->tag, "Snapshot")->required();
        }
        if (row.tags > 1) {
            verb->add_option("other", o->other, "The other snapshot")->required();
        }
        verb->add_option("--store", o->store, "Directory of snapshots");
        on_chosen(verb, status, o->json, [o, body = row.body] { return body(*o); });
    }
}

} // namespace nestor::cli
