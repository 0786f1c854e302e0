#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace vicreg::store {

// Every connection opened while one of these lives, in order: the store's writer first, then its reader.
class Connections {
 public:
  Connections() {
    open().clear();
    sqlite3_auto_extension(reinterpret_cast<void (*)()>(&Opened));
  }
  ~Connections() { sqlite3_cancel_auto_extension(reinterpret_cast<void (*)()>(&Opened)); }

  // The disk of the first connection is full after `pages` pages.
  static void LimitPages(int pages) { Run("PRAGMA max_page_count=" + std::to_string(pages)); }
  static void Run(const std::string& sql) {
    ASSERT_EQ(sqlite3_exec(open().at(0), sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
  }

  // The first connection to a file of this name.
  static sqlite3* To(const std::string& file) {
    for (sqlite3* connection : open()) {
      const std::string path = sqlite3_db_filename(connection, "main");
      if (path.size() > file.size() && path.substr(path.size() - file.size() - 1) == "/" + file) return connection;
    }
    return nullptr;
  }

 private:
  static std::vector<sqlite3*>& open() {
    static std::vector<sqlite3*> connections;
    return connections;
  }
  static int Opened(sqlite3* connection, char**, const void*) {
    open().push_back(connection);
    return SQLITE_OK;
  }
};

// The next commit of a connection is refused, after the test has had time to do what must come before that.
class RefusedCommit {
 public:
  explicit RefusedCommit(sqlite3* connection) : connection_(connection) {
    sqlite3_commit_hook(connection_, &RefusedCommit::OnCommit, this);
  }
  ~RefusedCommit() {
    Refuse();
    sqlite3_commit_hook(connection_, nullptr, nullptr);
  }
  // Until the commit has begun.
  bool Wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return begun_; });
  }
  void Refuse() {
    const std::lock_guard lock(mutex_);
    refuse_ = true;
    changed_.notify_all();
  }

 private:
  static int OnCommit(void* self) { return static_cast<RefusedCommit*>(self)->Refuses() ? 1 : 0; }
  bool Refuses() {
    std::unique_lock lock(mutex_);
    if (std::exchange(begun_, true)) return false;
    changed_.notify_all();
    changed_.wait(lock, [&] { return refuse_; });
    return true;
  }

  sqlite3* const connection_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool begun_ = false, refuse_ = false;
};

}  // namespace vicreg::store
