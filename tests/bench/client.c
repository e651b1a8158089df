/* The benchmark's client: a tight loop, so that what is measured is the mount and not the client.
 *
 *   client stat   ROOT LIST   lstat each name of the file LIST
 *   client near   ROOT LIST   the same, but from its directory, as ls and find do
 *   client open   ROOT LIST   open, read and close each (after an untimed lstat of each)
 *   client append ROOT LIST   open each for writing, append a byte, close
 *   client create ROOT COUNT  create, close and unlink COUNT files in ROOT/created
 *   client sequential ROOT NAME  read the file in blocks of 1 MiB, PASSES times
 *   client random     ROOT NAME  read blocks of 4 KiB of it, anywhere
 *   client walk   ROOT -      readdir and lstat everything below ROOT/many, without xattrs
 *
 * Prints the number of operations and the seconds they took; of reads, the bytes. Any failing call ends it.
 */
#define _GNU_SOURCE
#define PASSES 8
#define BLOCKS 50000
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char content[1 << 20];

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static char **read_names(const char *path, long *count)
{
	FILE *list = fopen(path, "r");
	char *line = NULL, **names = NULL;
	size_t room = 0;
	long capacity = 0;
	if (!list)
		err(1, "%s", path);
	*count = 0;
	while (getline(&line, &room, list) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (*count == capacity) {
			capacity = capacity ? capacity * 2 : 1024;
			names = realloc(names, capacity * sizeof *names);
		}
		if (!names || !(names[(*count)++] = strdup(line)))
			err(1, "no memory");
	}
	fclose(list);
	return names;
}

static void stat_all(char **names, long count)
{
	struct stat status;
	for (long i = 0; i < count; i++)
		if (lstat(names[i], &status))
			err(1, "lstat %s", names[i]);
}

static void stat_near(char **names, long count)
{
	const char *before = "";
	size_t length = 0;
	int directory = AT_FDCWD;
	struct stat status;
	for (long i = 0; i < count; i++) {
		char *slash = strrchr(names[i], '/');
		if (!slash)
			errx(2, "%s: in no directory", names[i]);
		if (length != (size_t)(slash - names[i]) || strncmp(before, names[i], length)) {
			if (directory != AT_FDCWD)
				close(directory);
			before = names[i];
			length = slash - names[i];
			*slash = 0;
			directory = open(names[i], O_PATH | O_DIRECTORY);
			*slash = '/';
		}
		if (directory < 0 || fstatat(directory, slash + 1, &status, AT_SYMLINK_NOFOLLOW))
			err(1, "stat %s", names[i]);
	}
}

static void open_all(char **names, long count)
{
	for (long i = 0; i < count; i++) {
		int file = open(names[i], O_RDONLY);
		if (file < 0 || read(file, content, sizeof content) <= 0)
			err(1, "read %s", names[i]);
		close(file);
	}
}

static long read_through(int file)
{
	long total = 0;
	ssize_t got;
	for (off_t at = 0; (got = pread(file, content, sizeof content, at)) > 0; at += got)
		total += got;
	if (got < 0)
		err(1, "read");
	return total;
}

static long read_file(const char *name, int at_random, double *start)
{
	int file = open(name, O_RDONLY);
	if (file < 0)
		err(1, "open %s", name);
	long blocks = read_through(file) / 4096, total = 0; /* not timed: now it is cached */
	if (blocks < 1)
		errx(1, "%s is too small", name);
	*start = now();
	if (!at_random)
		for (int pass = 0; pass < PASSES; pass++)
			total += read_through(file);
	else
		for (long i = 0; i < BLOCKS; i++, total += 4096)
			if (pread(file, content, 4096, random() % blocks * 4096) != 4096)
				err(1, "read %s", name);
	return total;
}

static void append_all(char **names, long count)
{
	for (long i = 0; i < count; i++) {
		int file = open(names[i], O_WRONLY | O_APPEND);
		if (file < 0 || write(file, "x", 1) != 1)
			err(1, "append to %s", names[i]);
		close(file);
	}
}

static void create_all(long count)
{
	char name[64];
	for (int pass = 0; pass < 2; pass++)
		for (long i = 0; i < count; i++) {
			snprintf(name, sizeof name, "created/file-%06ld", i);
			if (pass) {
				if (unlink(name))
					err(1, "unlink %s", name);
				continue;
			}
			int file = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
			if (file < 0)
				err(1, "create %s", name);
			close(file);
		}
}

static long walk(int parent, const char *name)
{
	int directory = openat(parent, name, O_RDONLY | O_DIRECTORY);
	DIR *stream = directory < 0 ? NULL : fdopendir(directory);
	struct dirent *entry;
	struct stat status;
	long found = 0;
	if (!stream)
		err(1, "directory %s", name);
	while ((entry = readdir(stream))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW))
			err(1, "stat %s", entry->d_name);
		found++;
		if (S_ISDIR(status.st_mode))
			found += walk(directory, entry->d_name);
	}
	closedir(stream);
	return found;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: client MODE ROOT LIST|COUNT|NAME|-");
	const char *mode = argv[1];
	long count = 0;
	int listed = !strcmp(mode, "stat") || !strcmp(mode, "near") || !strcmp(mode, "open") || !strcmp(mode, "append");
	char **names = listed ? read_names(argv[3], &count) : NULL;
	if (chdir(argv[2]))
		err(1, "%s", argv[2]);
	if (!strcmp(mode, "open"))
		stat_all(names, count);
	double start = now();
	if (!strcmp(mode, "stat"))
		stat_all(names, count);
	else if (!strcmp(mode, "near"))
		stat_near(names, count);
	else if (!strcmp(mode, "open"))
		open_all(names, count);
	else if (!strcmp(mode, "sequential") || !strcmp(mode, "random"))
		count = read_file(argv[3], !strcmp(mode, "random"), &start);
	else if (!strcmp(mode, "append"))
		append_all(names, count);
	else if (!strcmp(mode, "create"))
		create_all(count = atol(argv[3]));
	else if (!strcmp(mode, "walk"))
		count = walk(AT_FDCWD, "many");
	else
		errx(2, "unknown mode %s", mode);
	printf("%ld %.9f\n", count, now() - start);
	return 0;
}
