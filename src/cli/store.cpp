// vm store: the verbs about a directory of snapshots as a whole.
#include "src/cli/store.hpp"

#include "src/cli/verbs.hpp"

namespace nestor::cli {

void add_store(CLI::App& app, int& status) {
    CLI::App* const parent = add_group(app, "store", "Manage a directory of snapshots");
    add_store_init(*parent, status);
    add_store_stat(*parent, status);
    add_store_gc(*parent, status);
    add_store_sync(*parent, status);
    add_store_fsck(*parent, status);
}

} // namespace nestor::cli
