// The order of a file's structs, and what can only be seen once all of them are read: cycles, names
// taken twice, standard layout.
#include <algorithm>
#include <functional>
#include <stdexcept>

#include "tools/schema/model.hpp"

namespace nestor::schema {

namespace {

/// Depth first over what a struct contains, so that C++ sees every type before its use.
class Order final {
public:
    explicit Order(File& file) : file_(file), mark_(file.structs.size(), Mark::unseen) {
        for (std::size_t i = 0; i < file_.structs.size(); ++i) {
            if (!index_.emplace(file_.structs[i].name, i).second) {
                file_.refuse(file_.structs[i].schema_name,
                             "the C++ name " + file_.structs[i].name + " is taken twice");
            }
        }
    }

    std::vector<Struct> run() {
        for (std::size_t i = 0; i < mark_.size(); ++i) {
            visit(i);
        }
        return std::move(ordered_);
    }

private:
    enum class Mark { unseen, open, done };

    void visit(std::size_t i) {
        auto& current = file_.structs[i];
        if (mark_[i] == Mark::done) {
            return;
        }
        if (mark_[i] == Mark::open) {
            file_.refuse(current.schema_name, "contains itself");
        }
        mark_[i] = Mark::open;
        for (const auto& field : current.fields) {
            const auto found = index_.find(field.type);
            if (field.kind != Kind::enumeration && found != index_.end()) {
                visit(found->second);
            }
        }
        mark_[i] = Mark::done;
        ordered_.push_back(std::move(current));
        set_layout(ordered_.back());
    }

    /// Standard layout is promised where only scalars, arrays and structs of this file like that
    /// are inside.
    void set_layout(Struct& last) const {
        last.standard_layout =
            !last.is_union && std::ranges::all_of(last.fields, [&](const Field& field) {
                if (field.shape == Shape::list || field.kind == Kind::text ||
                    field.kind == Kind::data || field.kind == Kind::variant) {
                    return false;
                }
                if (field.kind != Kind::structure && field.kind != Kind::group) {
                    return true;
                }
                const auto inner = std::ranges::find(ordered_, field.type, &Struct::name);
                return inner != ordered_.end() && inner->standard_layout;
            });
    }

    File& file_;
    std::map<std::string, std::size_t> index_;
    std::vector<Mark> mark_;
    std::vector<Struct> ordered_;
};

void check_members(const File& file) {
    for (const auto& s : file.structs) {
        std::set<std::string> seen;
        for (const auto& field : s.fields) {
            if (!s.is_union && !seen.insert(field.live_name).second) {
                file.refuse(s.schema_name, "the member " + field.live_name + " is there twice");
            }
        }
    }
}

} // namespace

void File::refuse(const std::string& where, const std::string& why) const {
    throw std::runtime_error(path + ": " + where + ": " + why);
}

void order_structs(File& file) {
    file.structs = Order(file).run();
    check_members(file);
}

} // namespace nestor::schema
