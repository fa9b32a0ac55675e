// The verbs of `vm store`. Each stands in a file of its own.
#pragma once

namespace CLI {
class App;
}

namespace nestor::cli {

void add_store_init(CLI::App& parent, int& status);
void add_store_stat(CLI::App& parent, int& status);
void add_store_gc(CLI::App& parent, int& status);
void add_store_sync(CLI::App& parent, int& status);
void add_store_fsck(CLI::App& parent, int& status);

} // namespace nestor::cli
