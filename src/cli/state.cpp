// vm state: the state of a snapshot as text, and the schema it follows.
#include <cstdio>
#include <memory>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "snapshot/snapshot.hpp"
#include "src/base/fd.hpp"
#include "src/cli/schema_text.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/state_text.hpp"
#include "src/cli/verbs.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

constexpr std::size_t max_unit = std::size_t{64} << 20;

struct StateOptions {
    std::string what;
    std::string unit;
    std::string type;
    std::string store;
    bool json = false;
};

Result<const state::StructInfo*> find_type(const std::string& name) {
    const state::StructInfo* const info = state::erased::find(std::string_view(name));
    if (info == nullptr) {
        return fail(ErrorCode::usage, "there is no state struct " + name,
                    "list them with: vm state schema");
    }
    return info;
}

/// One unit's bytes in a file.
Result<int> decode_file(const StateOptions& o) {
    const auto bytes = TRY(read_file(o.what, max_unit));
    const state::StructInfo* const info = TRY(find_type(o.type));
    const std::string text = TRY(state::erased::decode_to_json(*info, bytes), o.what);
    print_line(o.json ? text : std::string(info->name) + indented(text, 1));
    return 0;
}

Result<int> decode(const StateOptions& o) {
    if (!o.type.empty()) {
        return decode_file(o);
    }
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    const auto snapshot = TRY(store.load(o.what));
    control::Object whole;
    for (const snapshot::Unit& unit : snapshot.units()) {
        if (!o.unit.empty() && unit.name != o.unit) {
            continue;
        }
        const state::StructInfo* const info = state::erased::find(unit.type);
        if (info == nullptr) {
            return fail(ErrorCode::incompatible, "unit " + unit.name + " is of an unknown type",
                        "use the vm that saved it");
        }
        const std::string text =
            TRY(state::erased::decode_to_json(*info, unit.bytes), "unit " + unit.name);
        whole.add(unit.name, control::RawJson{text});
        if (!o.json) {
            print_line(unit.name + " :" + info->name + indented(text, 1));
        }
    }
    if (!o.unit.empty() && !whole.has(o.unit)) {
        return fail(ErrorCode::usage, "snapshot " + o.what + " has no unit " + o.unit,
                    "list them with: vm snap show " + o.what);
    }
    if (o.json) {
        print_line(whole.to_json());
    }
    return 0;
}

std::string id_text(u64 id) {
    char text[24];
    std::snprintf(text, sizeof(text), "@0x%016llx", static_cast<unsigned long long>(id));
    return text;
}

void print_struct(const state::StructInfo& info) {
    print_line(std::string("struct ") + info.name + " " + id_text(info.id) + " {");
    for (const state::FieldInfo& field : info.fields) {
        const std::string ordinal =
            field.ordinal == 0xffff ? "" : " @" + std::to_string(field.ordinal);
        const std::string unit = *field.unit == '\0' ? "" : std::string(" in ") + field.unit;
        print_line(std::string("  ") + field.name + ordinal + " :" + type_text(field) + unit +
                   (field.policy ? ", policy of L0" : ""));
    }
    print_line("}");
}

std::string struct_json(const state::StructInfo& info) {
    std::vector<std::string> fields;
    for (const state::FieldInfo& field : info.fields) {
        control::Object line;
        line.add("name", field.name);
        if (field.ordinal != 0xffff) {
            line.add("ordinal", u64{field.ordinal});
        }
        line.add("type", type_text(field)).add("unit", field.unit).add("policy", field.policy);
        fields.push_back(line.to_json());
    }
    control::Object whole;
    whole.add("name", info.name).add("id", id_text(info.id)).add("rank", u64{info.rank});
    whole.add("fields", control::RawJson{control::json_array(fields)});
    return whole.to_json();
}

Result<int> schema(const StateOptions& o) {
    std::vector<const state::StructInfo*> wanted;
    if (o.what.empty()) {
        const auto all = state::erased::all();
        wanted.assign(all.begin(), all.end());
    } else {
        wanted.push_back(TRY(find_type(o.what)));
    }
    std::vector<std::string> structs;
    for (const state::StructInfo* info : wanted) {
        if (o.json) {
            structs.push_back(struct_json(*info));
        } else {
            print_struct(*info);
        }
    }
    if (o.json) {
        print_line(control::json_array(structs));
    }
    return 0;
}

} // namespace

void add_state(CLI::App& app, int& status) {
    CLI::App* const parent = add_group(app, "state", "The state of machines as text");
    auto o = std::make_shared<StateOptions>();
    CLI::App* verb = add_verb(*parent, "decode", "Show the state units of a snapshot",
                              "vm state decode booted --unit 'vcpu[0].cpu'", o->json);
    add_argument(verb, "what", o->what, "Snapshot; with --type a file");
    add_option(verb, "--unit", o->unit, "Only this unit");
    add_option(verb, "--type", o->type, "Decode a file that holds one struct of this type");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return decode(*o); });

    auto s = std::make_shared<StateOptions>();
    verb = add_verb(*parent, "schema", "Show the structs that state is made of",
                    "vm state schema Lapic", s->json);
    add_optional_argument(verb, "type", s->what, "Only this struct");
    on_chosen(verb, status, s->json, [s] { return schema(*s); });
}

} // namespace nestor::cli
