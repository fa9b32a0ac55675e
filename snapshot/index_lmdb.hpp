// LMDB as the index's two sources see it. Internal to index.cpp and index_file.cpp.
#pragma once

#include <string>
#include <utility>

#include <lmdb.h>

#include "src/base/result.hpp"

namespace nestor::snapshot {

inline MDB_env* env(void* p) { return static_cast<MDB_env*>(p); }
inline MDB_txn* txn(void* p) { return static_cast<MDB_txn*>(p); }

/// The failure that LMDB's `code` stands for.
[[nodiscard]] Failure fail_lmdb(const std::string& what, int code);

/// ENOSPC where LMDB calls a write to the file system of `path` that was cut short an I/O error.
[[nodiscard]] int write_error(const std::string& path, int code);

/// Walks an existing file. Missing is fine, empty too: LMDB makes it then.
[[nodiscard]] Result<> check_index_file(const std::string& path);

/// A read or write transaction that is given up unless it was committed.
class Transaction final {
public:
    ~Transaction() { abort(); }
    Transaction() = default;
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    int begin(MDB_env* environment, unsigned flags) {
        return mdb_txn_begin(environment, nullptr, flags, &txn_);
    }
    int commit() { return mdb_txn_commit(std::exchange(txn_, nullptr)); }
    void abort() {
        if (txn_ != nullptr) {
            mdb_txn_abort(std::exchange(txn_, nullptr));
        }
    }
    [[nodiscard]] MDB_txn* get() const { return txn_; }
    MDB_txn* release() { return std::exchange(txn_, nullptr); }

private:
    MDB_txn* txn_ = nullptr;
};

} // namespace nestor::snapshot
